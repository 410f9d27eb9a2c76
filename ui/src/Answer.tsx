/** A question and its answer: stages at work, text, sources, and what went wrong. */

import { Popover } from "@base-ui/react/popover";
import { memo, useCallback, useEffect, useState } from "react";
import { Copy } from "./Copy";
import { Cite, Markdown } from "./Markdown";
import { type PassageHandle, PassageTrigger, PassageWindow } from "./Passage";
import { shownTime, Times } from "./Times";
import { isOpen, labelOf, type Stage, type Turn } from "./turns";
import type { Source } from "./wire";

const TICK_MS = 100;

interface Props {
	turn: Turn;
	retry(turn: Turn): void;
	/** Something is being answered, so that nothing can be asked. */
	busy: boolean;
}

export const Answer = memo(function Answer({ turn, retry, busy }: Props) {
	const [handle] = useState(() => Popover.createHandle<number>());
	const cite = useCallback(
		(n: number) =>
			turn.sources.some((source) => source.n === n) ? <PassageTrigger handle={handle} n={n} /> : `[${n}]`,
		[handle, turn.sources],
	);
	return (
		<article className="turn">
			<h2 className="question" dir="auto">
				{turn.question}
			</h2>
			<Stages turn={turn} />
			{turn.rewritten && <p className="rewritten">Searched for: {turn.rewritten}</p>}
			<div className={isOpen(turn) ? "text open" : "text"} dir="auto">
				<Cite value={cite}>
					<Markdown text={turn.text} open={isOpen(turn)} cited />
				</Cite>
			</div>
			<Ending turn={turn} retry={() => retry(turn)} busy={busy} />
			<Sources sources={turn.sources} handle={handle} />
			{!isOpen(turn) && <Afterwards turn={turn} />}
			<PassageWindow handle={handle} sources={turn.sources} answer={turn.text} />
		</article>
	);
});

function Stages({ turn }: { turn: Turn }) {
	if (turn.status === "asking" && !turn.stages.length) return <p className="stages">Asking…</p>;
	return (
		<ul className="stages" aria-label="Stages">
			{turn.stages.map((stage) => (
				<StageChip key={stage.name} stage={stage} open={isOpen(turn)} />
			))}
			{turn.elapsedMs !== undefined && <li className="total">{shownTime(turn.elapsedMs)} in all</li>}
		</ul>
	);
}

function StageChip({ stage, open }: { stage: Stage; open: boolean }) {
	const atWork = stage.elapsedMs === undefined;
	return (
		<li className={atWork && open ? "stage at-work" : "stage"}>
			{labelOf(stage.name)}
			{atWork && open && "..."}
			{!atWork && <time>{shownTime(stage.elapsedMs ?? 0)}</time>}
			{atWork && open && <Ticking />}
		</li>
	);
}

/** The time that a stage has taken so far, by this machine's clock. */
function Ticking() {
	const [begun] = useState(() => performance.now());
	const [now, setNow] = useState(begun);
	useEffect(() => {
		const timer = window.setInterval(() => setNow(performance.now()), TICK_MS);
		return () => window.clearInterval(timer);
	}, []);
	return <time aria-hidden="true">{((now - begun) / 1000).toFixed(1)} s</time>;
}

function Ending({ turn, retry, busy }: { turn: Turn; retry(): void; busy: boolean }) {
	const isStored = turn.key === turn.runId; // it has failed before the page was opened
	if (turn.reconnecting)
		return (
			<p className="notice" role="alert">
				Connection lost. Trying to come back…
			</p>
		);
	if (turn.status === "cancelled") return <p className="notice">Stopped. What was said is kept.</p>;
	if (turn.status !== "error") return null;
	return (
		<div className="notice failed" role={isStored ? undefined : "alert"}>
			<p>{turn.failure?.message ?? "The answer could not be finished."}</p>
			<button type="button" disabled={busy} onClick={retry}>
				Retry
			</button>
		</div>
	);
}

function Sources({ sources, handle }: { sources: Source[]; handle: PassageHandle }) {
	if (!sources.length) return null;
	return (
		<ol className="sources" aria-label="Sources">
			{sources.map((source) => (
				<li key={source.n}>
					<PassageTrigger handle={handle} n={source.n} title={source.title} />
				</li>
			))}
		</ol>
	);
}

function Afterwards({ turn }: { turn: Turn }) {
	const [timed, showTimes] = useState(false);
	return (
		<div className="afterwards">
			{turn.text && <Copy label="Copy answer" text={() => turn.text} />}
			{(turn.runId || turn.stages.length > 0) && (
				<button type="button" className="quiet" aria-expanded={timed} onClick={() => showTimes(!timed)}>
					Times
				</button>
			)}
			{timed && <Times turn={turn} />}
		</div>
	);
}
