/** Conversations on the page: asking, stopping, coming back, and the events of each run, a frame's worth at a time. */

import { useCallback, useEffect, useReducer, useRef, useState } from "react";
import { eventsOf, type Numbered, newKey, Refused } from "./client";
import { onKey, read, reasonOf, send, withBody } from "./server";
import { listen } from "./stream";
import { isOpen, reduce, type Turn, turnsOf } from "./turns";
import type { ChatRequest, MessagePage, MessageRow } from "./wire";

const PAGE = 1000;
/** A page that is not seen has no frames. */
const FRAME_MS = 250;
/** How long the next question waits for a stopped run's end before it ends it itself. */
const STOPPING_MS = 1000;
const NONE: Turn[] = [];

type Begin = (signal: AbortSignal) => Promise<Response>;
/** A run that was begun before, and the last of its events that was seen. */
type Begun = { runId: string; last: number };

interface Reader {
	sessionId: string;
	key: string;
	leave: AbortController;
	/** The question was taken back; its run is stopped as soon as its id is known. */
	stopped: boolean;
	runId?: string | undefined;
	/** Take in what waits for its frame. */
	flush(): void;
	ended: Promise<void>;
}

export interface Asking {
	turns: Turn[];
	ask(question: string): void;
	/** Follow a run again that was lost, or ask its question again. */
	retry(turn: Turn): void;
	stop(): void;
	/** Put what is on the page away, and begin a new conversation. */
	begin(): void;
	busy: boolean;
	/** What was said before is not there yet: nothing can be asked. */
	loading: boolean;
	/** The conversations that are being answered, the one on the page or not. */
	answering: string[];
	/** Why the conversation could not be opened. */
	problem: string | undefined;
	/** Open it again. */
	reopen(): void;
}

/**
 * The conversation `opened`, or a new one, which has its address (`begun`) once the server has taken its first question.
 *
 * Answers go on, and are read on, while another conversation is on the page.
 */
export function useConversations(opened: string | undefined, begun: (sessionId: string) => void): Asking {
	const [all, dispatch] = useReducer(reduce, {});
	const [draft, setDraft] = useState(newKey);
	const [problem, setProblem] = useState<string>();
	const [attempt, setAttempt] = useState(0);
	const readers = useRef(new Set<Reader>());
	const shown = opened ?? draft;
	const turns = all[shown] ?? NONE;
	const known = useRef(all);
	known.current = all;

	const watch = useCallback((sessionId: string, key: string, start: Begin | Begun) => {
		const [begin, resumed] = typeof start === "function" ? [start] : [undefined, start];
		const leave = new AbortController();
		const { signal } = leave;
		const frames = byFrame((events) => {
			if (signal.aborted) return;
			dispatch({ type: "heard", sessionId, key, events });
			const unknown = reader.runId === undefined;
			reader.runId ??= runIdOf(events);
			if (reader.stopped && unknown && reader.runId) cancel(reader);
		});
		const { flush } = frames;
		const reader: Reader = {
			sessionId,
			key,
			leave,
			stopped: false,
			runId: resumed?.runId,
			flush,
			ended: Promise.resolve(),
		};
		readers.current.add(reader);
		const brokeOff = () => {
			flush(); // what came before the break is not what ends it
			dispatch({ type: "broke_off", sessionId, key });
		};
		const from = resumed && { address: eventsOf(resumed.runId), last: resumed.last };
		reader.ended = listen(begin && (() => begin(signal)), { heard: frames.add, brokeOff }, signal, from)
			.catch((problem) => {
				if (reader.stopped) return;
				const lost = !(problem instanceof Refused);
				dispatch({ type: "gave_up", sessionId, key, message: reasonOf(problem), lost });
			})
			.finally(() => readers.current.delete(reader));
	}, []);

	const isTaken = opened === undefined && turns.some((turn) => turn.runId !== undefined);
	useEffect(() => {
		if (!isTaken) return;
		begun(draft);
		setDraft(newKey());
	}, [isTaken, draft, begun]);

	const reopen = useCallback(() => setAttempt((now) => now + 1), []);
	useEffect(() => onKey("known", reopen), [reopen]);

	// biome-ignore lint/correctness/useExhaustiveDependencies: what was refused is tried again with another key
	useEffect(() => {
		setProblem(undefined);
		dispatch({ type: "shown", sessionId: shown });
		if (opened === undefined || known.current[opened]) return;
		const left = new AbortController();
		void messagesOf(opened, left.signal)
			.then((messages) => {
				const stored = turnsOf(messages);
				dispatch({ type: "opened", sessionId: opened, turns: stored });
				for (const { key } of stored.filter(isOpen)) {
					watch(opened, key, { runId: key, last: 0 });
				}
			})
			.catch((problem: Error) => left.signal.aborted || setProblem(reasonOf(problem)));
		return () => left.abort();
	}, [opened, shown, watch, attempt]);

	const ask = useCallback(
		(question: string) => {
			const key = newKey();
			dispatch({ type: "asked", sessionId: shown, key, question });
			const stopped = [...readers.current].filter((reader) => reader.stopped && reader.sessionId === shown);
			watch(shown, key, async (signal) => {
				// A session answers one question at a time.
				await Promise.race([Promise.all(stopped.map((reader) => reader.ended)), pause(STOPPING_MS)]);
				const body: ChatRequest = { message: question, session_id: shown, on_disconnect: "continue" };
				if (stopped.length) body.if_busy = "cancel";
				const request = withBody("POST", body);
				const headers = { ...request.headers, Accept: "text/event-stream", "Idempotency-Key": key };
				return send("/chat", { ...request, headers, signal });
			});
		},
		[shown, watch],
	);

	const retry = useCallback(
		({ key, question, runId, lost, lastId }: Turn) => {
			if (!lost || !runId) return ask(question);
			dispatch({ type: "resumed", sessionId: shown, key });
			watch(shown, key, { runId, last: lastId });
		},
		[ask, shown, watch],
	);

	const stop = useCallback(() => {
		for (const reader of readers.current) {
			if (reader.sessionId !== shown) continue;
			reader.stopped = true;
			dispatch({ type: "withdrawn", sessionId: shown, key: reader.key });
			if (reader.runId) cancel(reader);
		}
	}, [shown]);

	const begin = useCallback(() => setDraft(newKey()), []);
	const answering = Object.keys(all).filter((id) => all[id]?.some(isOpen));
	const busy = turns.some(isOpen);
	const loading = opened !== undefined && !all[opened];
	return { turns, ask, retry, stop, begin, busy, loading, answering, problem, reopen };
}

async function messagesOf(sessionId: string, signal: AbortSignal): Promise<MessageRow[]> {
	const address = `/sessions/${encodeURIComponent(sessionId)}/messages?limit=${PAGE}`;
	const messages: MessageRow[] = [];
	for (;;) {
		const page = await read<MessagePage>(`${address}&offset=${messages.length}`, { signal });
		messages.push(...page.messages);
		if (messages.length >= page.total || !page.messages.length) return messages;
	}
}

function cancel(reader: Reader): void {
	void send(`/runs/${reader.runId}/cancel`, { method: "POST" })
		.catch(() => undefined) // whoever left is missed after a while
		.finally(() => {
			reader.flush();
			reader.leave.abort();
		});
}

function pause(ms: number): Promise<void> {
	return new Promise((resolve) => window.setTimeout(resolve, ms));
}

function runIdOf(events: Numbered[]): string | undefined {
	const start = events.find(({ event }) => event.type === "run_start");
	return (start?.event.content as { run_id: string } | undefined)?.run_id;
}

/** Collects what comes within one frame. */
function byFrame(take: (events: Numbered[]) => void) {
	let waiting: Numbered[] = [];
	const flush = () => {
		if (!waiting.length) return;
		const events = waiting;
		waiting = [];
		take(events);
	};
	const add = (events: Numbered[]) => {
		const idle = waiting.length === 0;
		waiting.push(...events);
		if (!idle) return;
		requestAnimationFrame(flush);
		window.setTimeout(flush, FRAME_MS);
	};
	return { add, flush };
}
