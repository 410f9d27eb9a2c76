import { readFileSync } from "node:fs";
import { createParser } from "eventsource-parser";
import { expect, test } from "vitest";
import type { Numbered } from "../src/client";
import { type Action, newTurn, reduce, type Turn, take, tokensPerSecond, turnsOf } from "../src/turns";
import type { MessageRow } from "../src/wire";

const AT = "2026-01-01T00:00:00.000Z";
const RUNS = ["completed", "quoted", "follow_up", "cancelled", "failed"];

/** A run as the server sent it. */
function recorded(name: string): Numbered[] {
	const events: Numbered[] = [];
	const parser = createParser({ onEvent: ({ id, data }) => events.push({ id: Number(id), event: JSON.parse(data) }) });
	parser.feed(readFileSync(new URL(`recorded/${name}.sse`, import.meta.url), "utf8"));
	return events;
}

function afterwards(...actions: Omit<Action, "sessionId">[]): Turn | undefined {
	const asked = { type: "asked", key: "k", question: "Well?" };
	const all = [asked, ...actions].reduce((sofar, action) => reduce(sofar, { ...action, sessionId: "s" } as Action), {});
	return (all as Record<string, Turn[]>).s?.[0];
}

function heard(events: Numbered[]) {
	return { type: "heard", key: "k", events } as Omit<Action, "sessionId">;
}

test("a recorded run becomes a turn with its text, stages, times and sources", () => {
	const events = recorded("completed");
	const turn = afterwards(heard(events));
	const text = events.map(({ event }) => (event.type === "token" ? event.content : "")).join("");
	expect(turn).toMatchObject({ status: "completed", text, tokens: 7 });
	expect(turn?.stages.map(({ name }) => name)).toEqual(["retrieval", "reranking", "generation"]);
	expect(turn?.stages.every(({ elapsedMs }) => elapsedMs !== undefined)).toBe(true);
	expect(turn?.sources.map(({ n }) => n)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
	expect(turn?.elapsedMs).toBeGreaterThan(0);
	expect(turn?.others).toEqual([]);
});

test("a recorded follow-up tells what was searched for instead", () => {
	const turn = afterwards(heard(recorded("follow_up")));
	expect(turn?.rewritten).toContain("aripiprazole");
	expect(turn?.stages[0]?.name).toBe("condense");
});

test("a recorded stop and a recorded failure keep what was said", () => {
	expect(afterwards(heard(recorded("cancelled")))).toMatchObject({ status: "cancelled" });
	expect(afterwards(heard(recorded("cancelled")))?.text).toMatch(/^ w0 w1 w2/);
	const failed = afterwards(heard(recorded("failed")));
	expect(failed).toMatchObject({ status: "error", text: "Hello from the" });
	expect(failed?.failure?.message).toBeTruthy();
});

test.each(RUNS)("what is delivered twice of the run %s is taken once, however it is cut", (name) => {
	const run = recorded(name);
	const whole = afterwards(heard(run));
	for (let cut = 0; cut <= run.length; cut++) {
		const brokeOff = { type: "broke_off", key: "k" } as Omit<Action, "sessionId">;
		expect(afterwards(heard(run.slice(0, cut)), brokeOff, heard(run))).toEqual(whole);
	}
});

test("the stages of a plugin appear by themselves, and an event of an unknown type is kept", () => {
	const said: [string, unknown][] = [
		["run_start", { stage: "run", status: "started", run_id: "r", session_id: "s" }],
		["spell_check_start", { stage: "spell_check", status: "started" }],
		["spell_check_complete", { stage: "spell_check", status: "complete", elapsed_ms: 7 }],
		["weather", { hot: true }],
		["token", "Hello"],
	];
	const events = said.map(([type, content], n) => ({ id: n + 1, event: { type, content, timestamp: AT } }) as Numbered);
	const turn = afterwards(heard(events));
	expect(turn).toMatchObject({ status: "running", text: "Hello", stages: [{ name: "spell_check", elapsedMs: 7 }] });
	expect(turn?.others.map(({ type }) => type)).toEqual(["weather"]);
});

test("a stopped turn keeps its text, and a late token of it", () => {
	const run = recorded("completed");
	const late = run.findIndex(({ event }) => event.type === "token") + 1;
	const withdrawn = { type: "withdrawn", key: "k" } as Omit<Action, "sessionId">;
	expect(afterwards(heard(run.slice(0, late)), withdrawn)).toMatchObject({ status: "cancelled", text: "Hello" });
	expect(afterwards(heard(run.slice(0, late)), withdrawn, heard(run.slice(late, late + 1)))).toMatchObject({
		status: "cancelled",
		text: "Hello from",
	});
});

test("tokens a second are those behind the first", () => {
	const turn: Turn = { ...newTurn("k", ""), tokens: 11, firstTokenMs: 500 };
	expect(tokensPerSecond({ ...turn, stages: [{ name: "generation", begunAt: 0, elapsedMs: 1500 }] })).toBe(10);
	expect(tokensPerSecond(turn)).toBeUndefined();
});

test("other conversations are kept while they are being answered, and put away afterwards", () => {
	const open = take(newTurn("k", "Well?"), recorded("completed").slice(0, 3));
	const shown = { type: "shown", sessionId: "b" } as const;
	expect(Object.keys(reduce({ a: [open], b: [] }, shown))).toEqual(["a", "b"]);
	expect(Object.keys(reduce({ a: [take(open, recorded("completed"))], b: [] }, shown))).toEqual(["b"]);
});

test("a stored conversation that is read while something is asked keeps both", () => {
	const stored = newTurn("r1", "Earlier?");
	const all = { s: [newTurn("k", "Now?")] };
	const read = reduce(all, { type: "opened", sessionId: "s", turns: [{ ...stored, runId: "r1" }] });
	expect(read.s?.map(({ question }) => question)).toEqual(["Earlier?", "Now?"]);
});

test("a stored question without an answer is still being answered", () => {
	const row = { id: "m", run_id: "r", created_at: AT, sources: [], error: null };
	const question: MessageRow = { ...row, role: "user", content: "Well?", status: "completed" };
	const answer: MessageRow = { ...row, role: "assistant", content: "Yes.", status: "cancelled" };
	expect(turnsOf([question])[0]).toMatchObject({ status: "running", runId: "r" });
	expect(turnsOf([question, answer])[0]).toMatchObject({ status: "cancelled", text: "Yes." });
});
