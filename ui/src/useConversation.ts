/** One conversation on the page: asking, stopping, coming back, and the events of each run, a frame's worth at a time. */

import { useCallback, useEffect, useReducer, useRef, useState } from "react";
import { Refused, read, send, withBody } from "./server";
import { follow } from "./stream";
import { type Conversation, EMPTY, isOpen, type Numbered, reduce, turnsOf } from "./turns";
import type { ChatRequest, MessagePage } from "./wire";

interface Reader {
	key: string;
	leave: AbortController;
	/** The question was taken back; its run is stopped as soon as its id is known. */
	stopped: boolean;
	runId?: string | undefined;
}

export interface Asking {
	conversation: Conversation;
	ask(question: string): void;
	stop(): void;
	busy: boolean;
	/** Why the conversation could not be opened. */
	problem: string | undefined;
}

export function useConversation(opened: string | undefined, changed: (sessionId: string) => void): Asking {
	const [conversation, dispatch] = useReducer(reduce, EMPTY);
	const readers = useRef(new Set<Reader>());
	const [problem, setProblem] = useState<string>();
	/** The conversation that is on the page; one that was just begun has no address yet. */
	const shown = useRef<string>(undefined);
	const current = conversation.turns.at(-1);

	const watch = useCallback(async (key: string, begin: (signal: AbortSignal) => Promise<Response>) => {
		const reader: Reader = { key, leave: new AbortController(), stopped: false };
		readers.current.add(reader);
		const { signal } = reader.leave;
		const heard = byFrame((events) => {
			if (signal.aborted) return;
			dispatch({ type: "heard", key, events });
			const unknown = reader.runId === undefined;
			reader.runId ??= runIdOf(events);
			if (reader.stopped && unknown && reader.runId) cancel(reader);
		});
		try {
			await follow(() => begin(signal), { heard, brokeOff: () => dispatch({ type: "broke_off", key }) }, signal);
		} catch (problem) {
			if (reader.stopped) return;
			const message = problem instanceof Error ? problem.message : String(problem);
			dispatch({ type: "gave_up", key, message, retryable: !(problem instanceof Refused) || problem.passing });
		} finally {
			readers.current.delete(reader);
		}
	}, []);

	useEffect(() => {
		shown.current = conversation.sessionId;
		if (conversation.sessionId) changed(conversation.sessionId);
	}, [conversation.sessionId, changed]);

	useEffect(() => {
		if (opened === shown.current) return;
		for (const reader of readers.current) reader.leave.abort();
		dispatch({ type: "opened", turns: [] });
		setProblem(undefined);
		if (opened === undefined) return;
		const left = new AbortController();
		void read<MessagePage>(`/sessions/${encodeURIComponent(opened)}/messages?limit=1000`, { signal: left.signal })
			.then(({ messages }) => {
				const turns = turnsOf(messages);
				dispatch({ type: "opened", sessionId: opened, turns });
				for (const { key } of turns.filter(isOpen)) {
					void watch(key, (signal) => send(`/runs/${key}/events`, { signal }));
				}
			})
			.catch((problem: Error) => left.signal.aborted || setProblem(problem.message));
		return () => left.abort();
	}, [opened, watch]);

	const ask = (question: string) => {
		const key = newKey();
		const body: ChatRequest = { message: question, on_disconnect: "continue" };
		if (conversation.sessionId) body.session_id = conversation.sessionId;
		const request = withBody("POST", body);
		const headers = { ...request.headers, Accept: "text/event-stream", "Idempotency-Key": key };
		dispatch({ type: "asked", key, question });
		void watch(key, (signal) => send("/chat", { ...request, headers, signal }));
	};

	const stop = () => {
		for (const reader of readers.current) {
			reader.stopped = true;
			dispatch({ type: "withdrawn", key: reader.key });
			if (reader.runId) cancel(reader);
		}
	};

	return { conversation, ask, stop, busy: current !== undefined && isOpen(current), problem };
}

function cancel(reader: Reader): void {
	void send(`/runs/${reader.runId}/cancel`, { method: "POST" })
		.catch(() => undefined) // whoever left is missed after a while
		.finally(() => reader.leave.abort());
}

/** `randomUUID` is only there on this machine and over TLS. */
function newKey(): string {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function runIdOf(events: Numbered[]): string | undefined {
	const start = events.find(({ event }) => event.type === "run_start");
	return (start?.event.content as { run_id: string } | undefined)?.run_id;
}

/** Collect what comes within one frame; a hidden page has no frames, and takes everything as it comes. */
function byFrame(take: (events: Numbered[]) => void): (events: Numbered[]) => void {
	let waiting: Numbered[] = [];
	const flush = () => {
		const events = waiting;
		waiting = [];
		take(events);
	};
	return (events) => {
		const idle = waiting.length === 0;
		waiting = [...waiting, ...events];
		if (document.hidden) flush();
		else if (idle) requestAnimationFrame(flush);
	};
}
