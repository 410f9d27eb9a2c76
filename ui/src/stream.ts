/** A run's events as the page hears them. */

import { type Following, follow, type Numbered } from "./client";
import { send } from "./server";

export interface Listener {
	heard(events: Numbered[]): void;
	brokeOff?(): void;
}

/** Tell the listener the events of a run, or of a job, until the last one, or until `signal` aborts; see `follow`. */
export async function listen(
	begin: (() => Promise<Response>) | undefined,
	listener: Listener,
	signal: AbortSignal,
	from?: Following["from"],
): Promise<void> {
	const brokeOff = () => listener.brokeOff?.();
	for await (const events of follow(begin, send, { signal, brokeOff, from })) {
		logged(events);
		listener.heard(events);
	}
}

/** For those who look for the cause of something: `localStorage.DEBUG_STREAMING = 1`. */
function logged(events: Numbered[]): void {
	if (!localStorage.getItem("DEBUG_STREAMING")) return;
	for (const { id, event } of events) console.log(`#${id}`, event.type, event.timestamp, event.content);
}
