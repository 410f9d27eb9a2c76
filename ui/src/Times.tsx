/** Where the time of an answer went: its stages one below the other, first token, tokens a second. */

import { useEffect, useRef, useState } from "react";
import { reasonOf, send } from "./server";
import { listen } from "./stream";
import { labelOf, newTurn, type Stage, type Turn, take, tokensPerSecond } from "./turns";

export function Times({ turn }: { turn: Turn }) {
	const { timed, problem } = useTimed(turn);
	const figure = useRef<HTMLElement>(null);
	const isThere = timed !== undefined;
	useEffect(() => {
		if (isThere) figure.current?.scrollIntoView({ block: "nearest" });
	}, [isThere]);
	if (problem) return <p className="notice">{problem}</p>;
	if (!timed) return <p className="notice">Reading the run…</p>;
	const total =
		timed.elapsedMs ?? Math.max(1, ...timed.stages.map((stage) => offsetOf(stage, timed) + (stage.elapsedMs ?? 0)));
	return (
		<figure className="times" aria-label="Times" ref={figure}>
			<table>
				<thead className="sr-only">
					<tr>
						<th>Stage</th>
						<th>When</th>
						<th>Time</th>
					</tr>
				</thead>
				<tbody>
					{timed.stages.map((stage) => (
						<Row key={stage.name} stage={stage} turn={timed} total={total} />
					))}
				</tbody>
			</table>
			<figcaption>{summaryOf(timed)}</figcaption>
		</figure>
	);
}

function Row({ stage, turn, total }: { stage: Stage; turn: Turn; total: number }) {
	const left = share(offsetOf(stage, turn), total);
	const width = Math.min(share(stage.elapsedMs ?? 0, total), 100 - left);
	const first =
		stage.name === "generation" && turn.firstTokenMs !== undefined ? share(turn.firstTokenMs, total) : undefined;
	return (
		<tr>
			<th scope="row">{labelOf(stage.name)}</th>
			<td className="lane">
				<div className="bar" style={{ left: `${left}%`, width: `${width}%` }} />
				{first !== undefined && (
					<div className="first" title="First token" style={{ left: `${Math.min(left + first, 100)}%` }} />
				)}
			</td>
			<td className="figure">{stage.elapsedMs === undefined ? "not ended" : shownTime(stage.elapsedMs)}</td>
		</tr>
	);
}

function offsetOf(stage: Stage, turn: Turn): number {
	return Math.max(0, stage.begunAt - (turn.begunAt ?? stage.begunAt));
}

function share(ms: number, total: number): number {
	return Math.min(100, (100 * ms) / Math.max(total, 1));
}

function summaryOf(turn: Turn): string {
	const speed = tokensPerSecond(turn);
	return [
		turn.firstTokenMs !== undefined && `First token after ${shownTime(turn.firstTokenMs)} of writing`,
		`${turn.tokens} ${turn.tokens === 1 ? "token" : "tokens"}`,
		speed !== undefined && `${speed < 10 ? speed.toFixed(1) : Math.round(speed).toLocaleString()} tokens/s`,
		turn.elapsedMs !== undefined && `${shownTime(turn.elapsedMs)} in all`,
	]
		.filter(Boolean)
		.join(" · ");
}

export function shownTime(ms: number): string {
	return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** A turn that was opened from the store has no times: they are in its events. */
function useTimed(turn: Turn): { timed?: Turn; problem?: string } {
	const [found, setFound] = useState<{ timed?: Turn; problem?: string }>({});
	const isKnown = turn.stages.length > 0 || !turn.runId;
	useEffect(() => {
		if (isKnown) return;
		const leave = new AbortController();
		replay(turn, leave.signal)
			.then((timed) => leave.signal.aborted || setFound({ timed }))
			.catch((problem) => setFound({ problem: reasonOf(problem) }));
		return () => leave.abort();
	}, [turn, isKnown]);
	return isKnown ? { timed: turn } : found;
}

async function replay(turn: Turn, signal: AbortSignal): Promise<Turn> {
	let timed = newTurn(turn.key, turn.question);
	const heard = (events: Parameters<typeof take>[1]) => {
		timed = take(timed, events);
	};
	await listen(() => send(`/runs/${turn.runId}/events`, { signal }), { heard }, signal);
	return timed;
}
