/** A run's events, however often the connection breaks on the way. */

import { createParser } from "eventsource-parser";
import { Refused, send } from "./server";
import type { Numbered } from "./turns";

/** Waits before each attempt to come back; a run goes on for 30 s without a reader. */
const WAITS_MS = [200, 400, 800, 1600, 2000, 2000, 2000, 2000, 4000, 4000, 4000, 4000];
/** The server lets no stream be silent for as long as this. */
const SILENCE_MS = 30_000;
const TERMINAL = new Set(["done", "error", "cancelled", "ingestion_complete"]);

/** The connection did not come back in time. */
export class Unreachable extends Error {}

export interface Listener {
	heard(events: Numbered[]): void;
	brokeOff(): void;
}

/**
 * Tell the listener the events of a run, or of a job, until the last one, or until `signal` aborts.
 *
 * `begin` sends the request that starts it; sent again, it must attach to the same run. From the first event on the
 * stream is taken up behind the last event that was heard.
 */
export async function follow(begin: () => Promise<Response>, listener: Listener, signal: AbortSignal): Promise<void> {
	let seen: { address?: string; last: number } = { last: 0 };
	let attempt = 0;
	while (!signal.aborted) {
		try {
			const { address, last } = seen;
			const again = (path: string) => send(path, { headers: { "Last-Event-ID": `${last}` }, signal });
			const response = await (address ? again(address) : begin());
			if (response.status === 204) return;
			for await (const events of batches(response, signal)) {
				attempt = 0;
				logged(events);
				listener.heard(events);
				seen = { ...seen, ...startOf(events), last: events.at(-1)?.id ?? seen.last };
				if (events.some(({ event }) => TERMINAL.has(event.type))) return;
			}
		} catch (problem) {
			if (signal.aborted) return;
			if (problem instanceof Refused && !problem.passing) throw problem;
			if (problem instanceof Refused && !seen.address) throw problem;
		}
		if (signal.aborted) return;
		listener.brokeOff();
		const wait = WAITS_MS[attempt++];
		if (wait === undefined) throw new Unreachable("The server cannot be reached.");
		await pause(wait, signal);
	}
}

/** Where the events can be had again, as the first of them says. */
function startOf(events: Numbered[]): { address?: string } {
	const first = events[0]?.event;
	const content = first?.content as { run_id?: string; job_id?: string } | undefined;
	if (first?.type === "run_start") return { address: `/runs/${content?.run_id}/events` };
	return first?.type === "ingestion_start" ? { address: `/jobs/${content?.job_id}/events` } : {};
}

/** For those who look for the cause of something: `localStorage.DEBUG_STREAMING = 1`. */
function logged(events: Numbered[]): void {
	if (!localStorage.getItem("DEBUG_STREAMING")) return;
	for (const { id, event } of events) console.log(`#${id}`, event.type, event.timestamp, event.content);
}

/** The events of a response, as many at a time as came together; ends without an error when the stream breaks off. */
async function* batches(response: Response, signal: AbortSignal): AsyncGenerator<Numbered[]> {
	if (!response.body) return;
	let ready: Numbered[] = [];
	const parser = createParser({
		onEvent: ({ id, data }) => ready.push({ id: Number(id), event: JSON.parse(data) }),
	});
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	const leave = () => void reader.cancel();
	signal.addEventListener("abort", leave);
	window.addEventListener("offline", leave);
	try {
		for (;;) {
			const { value, done } = await within(SILENCE_MS, reader.read());
			if (done) return;
			parser.feed(value);
			if (ready.length) yield ready;
			ready = [];
		}
	} finally {
		signal.removeEventListener("abort", leave);
		window.removeEventListener("offline", leave);
		leave();
	}
}

function within<T>(ms: number, waited: Promise<T>): Promise<T> {
	let timer: number;
	const over = new Promise<never>((_, reject) => {
		timer = window.setTimeout(() => reject(new TypeError("silent")), ms);
	});
	return Promise.race([waited, over]).finally(() => window.clearTimeout(timer));
}

/** Wait, or until the network is back. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
	return new Promise((resolve) => {
		const end = () => {
			window.clearTimeout(timer);
			window.removeEventListener("online", end);
			signal.removeEventListener("abort", end);
			resolve();
		};
		const timer = window.setTimeout(end, ms);
		window.addEventListener("online", end);
		signal.addEventListener("abort", end);
	});
}
