import { expect, test } from "vitest";
import { EMPTY, type Numbered, reduce, take } from "../src/turns";

const AT = "2026-01-01T00:00:00.000Z";

function numbered(events: [string, unknown][]): Numbered[] {
	return events.map(([type, content], n) => ({ id: n + 1, event: { type, content, timestamp: AT } }));
}

const RUN = numbered([
	["run_start", { stage: "run", status: "started", run_id: "r", session_id: "s" }],
	["spelling_start", { stage: "spelling", status: "started" }],
	["spelling_complete", { stage: "spelling", status: "complete", elapsed_ms: 7 }],
	["weather", { hot: true }],
	["generation_start", { stage: "generation", status: "started", model: "m" }],
	["token", "Hel"],
	["token", "lo"],
	["generation_complete", { stage: "generation", status: "complete", first_token_ms: 3, elapsed_ms: 5 }],
	["done", { run_id: "r", message_id: "m", elapsed_ms: 20, stages: {} }],
]);

function asked() {
	return reduce(EMPTY, { type: "asked", key: "k", question: "Well?" });
}

test("a run becomes a turn with text, stages and times", () => {
	const conversation = reduce(asked(), { type: "heard", key: "k", events: RUN });
	expect(conversation.sessionId).toBe("s");
	expect(conversation.turns[0]).toMatchObject({
		status: "completed",
		text: "Hello",
		tokens: 2,
		runId: "r",
		elapsedMs: 20,
		firstTokenMs: 3,
		stages: [
			{ name: "spelling", elapsedMs: 7 },
			{ name: "generation", elapsedMs: 5 },
		],
	});
});

test("what is delivered twice is taken once, however it is cut", () => {
	const whole = reduce(asked(), { type: "heard", key: "k", events: RUN });
	for (let cut = 0; cut <= RUN.length; cut++) {
		const first = reduce(asked(), { type: "heard", key: "k", events: RUN.slice(0, cut) });
		const broken = reduce(first, { type: "broke_off", key: "k" });
		expect(reduce(broken, { type: "heard", key: "k", events: RUN })).toEqual(whole);
	}
});

test("an event of an unknown type is kept", () => {
	const [turn] = reduce(asked(), { type: "heard", key: "k", events: RUN }).turns;
	expect(turn?.others.map(({ type }) => type)).toEqual(["weather"]);
});

test("a stopped turn keeps its text, and a late token of it", () => {
	const said = reduce(asked(), { type: "heard", key: "k", events: RUN.slice(0, 6) });
	const [turn] = reduce(said, { type: "withdrawn", key: "k" }).turns;
	expect(turn).toMatchObject({ status: "cancelled", text: "Hel" });
	expect(turn && take(turn, RUN.slice(6, 7))).toMatchObject({ status: "cancelled", text: "Hello" });
});
