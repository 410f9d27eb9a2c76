/** What the page knows of conversations: one reducer over what happens to them. */

import type { Numbered } from "./client";
import type { Event, Failure, MessageRow, Source } from "./wire";

export interface Stage {
	name: string;
	/** From the event's own time stamp, in ms since 1970. */
	begunAt: number;
	/** Absent while the stage is at work. */
	elapsedMs?: number;
}

/** `asking`: no event has come yet. */
export type Status = "asking" | "running" | "completed" | "cancelled" | "error";

/** A question and its answer. */
export interface Turn {
	/** Also the question's idempotency key. */
	key: string;
	question: string;
	status: Status;
	text: string;
	stages: Stage[];
	sources: Source[];
	runId?: string;
	/** From the run's first event, in ms since 1970. */
	begunAt?: number;
	/** What was searched for instead of the question. */
	rewritten?: string;
	failure?: Pick<Failure, "message">;
	/** The server could not be reached any more, and the run may have gone on. */
	lost: boolean;
	/** The number of the last event that was taken in. */
	lastId: number;
	tokens: number;
	/** From the beginning of the stage that wrote the answer. */
	firstTokenMs?: number;
	elapsedMs?: number;
	/** The connection broke, and is being made again. */
	reconnecting: boolean;
	/** Events of types that are not known here. */
	others: Numbered["event"][];
}

/** The conversations that are shown or being answered: their turns, by the session's id. */
export type Conversations = Readonly<Record<string, Turn[]>>;

export type Action = { sessionId: string } & (
	| { type: "opened"; turns: Turn[] }
	/** This conversation is shown now; of the others those are kept that are being answered. */
	| { type: "shown" }
	| { type: "asked"; key: string; question: string }
	| { type: "heard"; key: string; events: Numbered[] }
	| { type: "broke_off"; key: string }
	/** `lost`: the run may go on, but the server could not be reached. */
	| { type: "gave_up"; key: string; message: string; lost: boolean }
	/** A run that was lost is followed again. */
	| { type: "resumed"; key: string }
	| { type: "withdrawn"; key: string }
);

export function reduce(all: Conversations, action: Action): Conversations {
	if (action.type === "shown")
		return Object.fromEntries(
			Object.entries(all).filter(([id, turns]) => id === action.sessionId || turns.some(isOpen)),
		);
	const turns = all[action.sessionId] ?? [];
	return { ...all, [action.sessionId]: changed(turns, action) };
}

function changed(turns: Turn[], action: Exclude<Action, { type: "shown" }>): Turn[] {
	switch (action.type) {
		case "opened": {
			const stored = new Set(action.turns.map((turn) => turn.runId));
			return [...action.turns, ...turns.filter((turn) => !turn.runId || !stored.has(turn.runId))];
		}
		case "asked":
			return [...turns, newTurn(action.key, action.question)];
		case "heard":
			return change(turns, action.key, (turn) => take(turn, action.events));
		case "broke_off":
			return change(turns, action.key, (turn) => ({ ...turn, reconnecting: isOpen(turn) }));
		case "gave_up":
			return change(turns, action.key, (turn) => ({
				...closed(turn, "error"),
				failure: { message: action.message },
				lost: action.lost,
			}));
		case "resumed":
			return change(turns, action.key, (turn) => ({ ...turn, status: "running", lost: false, reconnecting: true }));
		case "withdrawn":
			return change(turns, action.key, (turn) => closed(turn, "cancelled"));
	}
}

export function newTurn(key: string, question: string): Turn {
	return {
		key,
		question,
		status: "asking",
		text: "",
		stages: [],
		sources: [],
		lastId: 0,
		tokens: 0,
		reconnecting: false,
		lost: false,
		others: [],
	};
}

/** The turns of a stored conversation; one that is still being answered has status `running`. */
export function turnsOf(messages: MessageRow[]): Turn[] {
	const answers = new Map(messages.filter((m) => m.role === "assistant").map((m) => [m.run_id, m]));
	return messages.filter((m) => m.role === "user").map((m) => storedTurn(m, answers.get(m.run_id)));
}

function storedTurn(question: MessageRow, answer: MessageRow | undefined): Turn {
	const turn: Turn = { ...newTurn(question.run_id, question.content), runId: question.run_id, status: "running" };
	if (!answer) return turn;
	const stored: Turn = {
		...turn,
		text: answer.content,
		sources: answer.sources,
		status: answer.status as Status,
	};
	return answer.error ? { ...stored, failure: answer.error } : stored;
}

function change(turns: Turn[], key: string, changed: (turn: Turn) => Turn): Turn[] {
	return turns.map((turn) => (turn.key === key ? changed(turn) : turn));
}

/** Take in events, each once, whatever is delivered again. */
export function take(turn: Turn, events: Numbered[]): Turn {
	const fresh = events.filter(({ id }) => id > turn.lastId);
	const last = fresh.at(-1);
	if (!last) return { ...turn, reconnecting: false };
	const texts = fresh.map(({ event }) => (event.type === "token" ? event.content : ""));
	const next: Turn = {
		...turn,
		text: turn.text + texts.join(""),
		tokens: turn.tokens + fresh.filter(({ event }) => event.type === "token").length,
		lastId: last.id,
		reconnecting: false,
		status: turn.status === "asking" ? "running" : turn.status,
	};
	return fresh.reduce((sofar, { event }) => (event.type === "token" ? sofar : takeOne(sofar, event as Event)), next);
}

function takeOne(turn: Turn, event: Event): Turn {
	switch (event.type) {
		case "run_start":
			return { ...turn, runId: event.content.run_id, begunAt: Date.parse(event.timestamp) };
		case "sources":
			return { ...turn, sources: event.content.sources };
		case "condense_complete":
			return staged({ ...turn, rewritten: event.content.query }, event);
		case "generation_complete": {
			const ended = staged(turn, event);
			const { first_token_ms } = event.content;
			return first_token_ms === null ? ended : { ...ended, firstTokenMs: first_token_ms };
		}
		case "done":
			return { ...closed(turn, "completed"), elapsedMs: event.content.elapsed_ms };
		case "error":
			return { ...closed(turn, "error"), failure: event.content };
		case "cancelled":
			return closed(turn, "cancelled");
		default:
			return staged(turn, event);
	}
}

/** Any `<stage>_start` and `<stage>_complete`, those of plugins too; what is neither is kept, and no fault. */
function staged(turn: Turn, event: Numbered["event"]): Turn {
	const [, name, what] = /^(\w+)_(start|complete)$/.exec(event.type) ?? [];
	if (name === undefined) return { ...turn, others: [...turn.others, event] };
	if (what === "start") return { ...turn, stages: [...turn.stages, { name, begunAt: Date.parse(event.timestamp) }] };
	const elapsedMs = (event.content as { elapsed_ms?: number } | null)?.elapsed_ms ?? 0;
	return { ...turn, stages: turn.stages.map((stage) => (stage.name === name ? { ...stage, elapsedMs } : stage)) };
}

function closed(turn: Turn, status: Status): Turn {
	return { ...turn, status, reconnecting: false };
}

export function isOpen(turn: Turn): boolean {
	return turn.status === "asking" || turn.status === "running";
}

/** How fast the answer came once it came; undefined where there is too little of it to say. */
export function tokensPerSecond(turn: Turn): number | undefined {
	const writing = turn.stages.find(({ name }) => name === "generation");
	if (writing?.elapsedMs === undefined || turn.firstTokenMs === undefined || turn.tokens < 2) return undefined;
	const ms = writing.elapsedMs - turn.firstTokenMs;
	return ms > 0 ? ((turn.tokens - 1) * 1000) / ms : undefined;
}

const LABELS: Record<string, string> = {
	condense: "Understanding",
	retrieval: "Searching",
	reranking: "Reranking",
	generation: "Generating",
};

export function labelOf(stage: string): string {
	const words = stage.replaceAll("_", " ");
	return LABELS[stage] ?? words.charAt(0).toUpperCase() + words.slice(1);
}
