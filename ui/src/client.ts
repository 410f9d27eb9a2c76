/**
 * A client in TypeScript, for browsers and Node: the events of an answer as they come, each once and in order, however
 * often the connection breaks.
 *
 *     const client = new Client("http://localhost:8000");
 *     for await (const { event } of client.ask("What is aripiprazole?"))
 *         if (event.type === "token") show(event.content);
 *
 * It needs the package `eventsource-parser` and the types in `wire.ts`.
 */

import { createParser } from "eventsource-parser";
import type { ChatRequest, Event } from "./wire";

/** Waits before each attempt to come back; a run goes on for 30 s without a reader. */
const WAITS_MS = [200, 400, 800, 1600, 2000, 2000, 2000, 2000, 4000, 4000, 4000, 4000];
/** The server lets no stream be silent for as long as this. */
const SILENCE_MS = 30_000;
const TERMINAL = new Set(["done", "error", "cancelled", "ingestion_complete"]);

/** An event of a stage that a plugin added, or of a type that is newer than this client. */
export interface UnknownEvent {
	type: `${string}_${string}`;
	content: unknown;
	timestamp: string;
}

/** An event, and its number within its run. */
export interface Numbered {
	id: number;
	event: Event | UnknownEvent;
}

/** The server refused a request, and said why. */
export class Refused extends Error {
	constructor(
		readonly status: number,
		detail: string,
	) {
		super(detail);
	}

	/** Whether the same request may be answered later. */
	get passing(): boolean {
		return [429, 502, 503, 504].includes(this.status);
	}
}

/** The connection did not come back in time. */
export class Unreachable extends Error {}

/** Sends a request to a path of the server; rejects with `Refused` whatever is not 2xx. */
export type Send = (path: string, init?: RequestInit) => Promise<Response>;

export interface Following {
	/** Leaves the stream when it aborts; what follows it ends without an error. */
	signal?: AbortSignal | undefined;
	/** Is called whenever the connection breaks, before it is made again. */
	brokeOff?: () => void;
	/** Where the events can be had, and the last that was seen, of a run that was begun before. */
	from?: { address: string; last: number } | undefined;
}

/** Asks one server; `key` is one of its API keys, where it needs one. */
export class Client {
	readonly #send: Send;

	constructor(url: string, key?: string) {
		this.#send = (path, init = {}) => {
			const headers = new Headers(init.headers);
			if (key) headers.set("Authorization", `Bearer ${key}`);
			return accepted(fetch(`${url.replace(/\/$/, "")}${path}`, { ...init, headers }));
		};
	}

	/**
	 * The events of the answer to a question, until the last. Left before that, or aborted, it stops the run; aborted
	 * before the first event, the run may have begun, and is answered until its grace period ends.
	 *
	 * Throws `Refused` when the question is not accepted, `Unreachable` when the server does not come back in time.
	 */
	async *ask(
		message: string,
		question: Omit<ChatRequest, "message" | "stream" | "on_disconnect"> = {},
		following: Following = {},
	): AsyncGenerator<Numbered, void> {
		// A question whose answer is lost on the way is sent again, and must not be asked twice.
		const headers = { "Content-Type": "application/json", "Idempotency-Key": newKey() };
		const body = JSON.stringify({ ...question, message, stream: true, on_disconnect: "continue" });
		const begin = () => this.#send("/chat", { method: "POST", headers, body, signal: following.signal ?? null });
		let address: string | undefined;
		let ended = false;
		try {
			for await (const events of follow(begin, this.#send, following)) {
				address ??= addressOf(events);
				for (const numbered of events) {
					ended = TERMINAL.has(numbered.event.type);
					yield numbered;
				}
			}
		} finally {
			if (address && !ended) await this.#cancel(address);
		}
	}

	/** The events of a run behind number `after`, also of one that has ended; throws as `ask`. */
	async *watch(runId: string, after = 0, following: Following = {}): AsyncGenerator<Numbered, void> {
		const from = { address: eventsOf(runId), last: after };
		for await (const events of follow(undefined, this.#send, { ...following, from })) yield* events;
	}

	/** A server that cannot be reached stops the run by itself, having no reader. */
	async #cancel(address: string): Promise<void> {
		const signal = AbortSignal.timeout(5000);
		await this.#send(address.replace(/events$/, "cancel"), { method: "POST", signal }).catch(() => undefined);
	}
}

/**
 * The events of a run, or of a job, as many at a time as came together, until the last one, or until the signal aborts.
 *
 * `begin` sends the request that starts it, where it was not begun before; sent again, it must attach to the same run.
 * From the first event on the stream is taken up behind the last event that was heard.
 */
export async function* follow(
	begin: (() => Promise<Response>) | undefined,
	send: Send,
	{ signal, brokeOff, from }: Following = {},
): AsyncGenerator<Numbered[], void> {
	let address = from?.address;
	let last = from?.last ?? 0;
	let attempt = 0;
	const again = (path: string) => send(path, { headers: { "Last-Event-ID": `${last}` }, signal: signal ?? null });
	while (!signal?.aborted) {
		try {
			const response = await (address ? again(address) : begin?.());
			if (!response || response.status === 204) return;
			for await (const events of batches(response, signal)) {
				attempt = 0;
				address ??= addressOf(events);
				last = events.at(-1)?.id ?? last;
				yield events;
				if (events.some(({ event }) => TERMINAL.has(event.type))) return;
			}
		} catch (problem) {
			if (signal?.aborted) return;
			if (problem instanceof Refused && !(problem.passing && address)) throw problem;
		}
		if (signal?.aborted) return;
		brokeOff?.();
		const wait = WAITS_MS[attempt++];
		if (wait === undefined) throw new Unreachable("The server cannot be reached.");
		await pause(wait, signal);
	}
}

/** The address of a run's events. */
export function eventsOf(runId: string): string {
	return `/runs/${runId}/events`;
}

/** A key of one's own for a question; `randomUUID` is only there on this machine and over TLS. */
export function newKey(): string {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Where the events can be had again, as the first of them says. */
function addressOf(events: Numbered[]): string | undefined {
	const first = events[0]?.event;
	const content = first?.content as { run_id?: string; job_id?: string } | undefined;
	if (first?.type === "run_start") return eventsOf(`${content?.run_id}`);
	return first?.type === "ingestion_start" ? `/jobs/${content?.job_id}/events` : undefined;
}

/** A response that is 2xx; another is thrown as `Refused`, a broken connection as `TypeError`. */
export async function accepted(answer: Promise<Response>): Promise<Response> {
	const response = await answer;
	if (response.ok) return response;
	throw refusal(response.status, await response.text().catch(() => ""));
}

export function refusal(status: number, body: string): Refused {
	try {
		const problem: { detail?: string } = JSON.parse(body);
		if (problem.detail) return new Refused(status, problem.detail);
	} catch {
		// not from our server, but from one between
	}
	return new Refused(status, `The server answered with status ${status}.`);
}

/** The events of a response, as many at a time as came together; ends without an error when the stream breaks off. */
async function* batches(response: Response, signal: AbortSignal | undefined): AsyncGenerator<Numbered[], void> {
	if (!response.body) return;
	let ready: Numbered[] = [];
	const parser = createParser({
		onEvent: ({ id, data }) => ready.push({ id: Number(id), event: JSON.parse(data) }),
	});
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	const leave = () => void reader.cancel().catch(() => undefined);
	signal?.addEventListener("abort", leave);
	network?.addEventListener("offline", leave);
	try {
		for (;;) {
			const { value, done } = await within(SILENCE_MS, reader.read());
			if (done) return;
			parser.feed(value);
			if (ready.length) yield ready;
			ready = [];
		}
	} finally {
		signal?.removeEventListener("abort", leave);
		network?.removeEventListener("offline", leave);
		leave();
	}
}

/** Tells in a browser when the network goes and comes. */
const network = "addEventListener" in globalThis ? globalThis : undefined;

function within<T>(ms: number, waited: Promise<T>): Promise<T> {
	let timer: ReturnType<typeof setTimeout>;
	const over = new Promise<never>((_, reject) => {
		timer = setTimeout(() => reject(new TypeError("silent")), ms);
	});
	return Promise.race([waited, over]).finally(() => clearTimeout(timer));
}

/** Wait, or until the network is back. */
function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
	return new Promise((resolve) => {
		const end = () => {
			clearTimeout(timer);
			network?.removeEventListener("online", end);
			signal?.removeEventListener("abort", end);
			resolve();
		};
		const timer = setTimeout(end, ms);
		network?.addEventListener("online", end);
		signal?.addEventListener("abort", end);
	});
}
