/** A question and its answer: stages at work, text, sources, and what went wrong. */

import { type ReactNode, useCallback, useState } from "react";
import { Markdown } from "./Markdown";
import { isOpen, labelOf, type Stage, type Turn } from "./turns";
import type { Source } from "./wire";

interface Props {
	turn: Turn;
	retry(): void;
	follow(address: string): void;
}

export function Answer({ turn, retry, follow }: Props) {
	const [shown, show] = useState<number>();
	const cite = useCallback(
		(n: number) => (
			<button
				type="button"
				className="citation"
				aria-label={`Source ${n}`}
				onClick={() => show((now) => (now === n ? undefined : n))}
			>
				[{n}]
			</button>
		),
		[],
	);
	const link = useCallback(
		(address: string, text: ReactNode) => (
			<button type="button" className="link" onClick={() => follow(address)}>
				{text}
			</button>
		),
		[follow],
	);
	return (
		<article className="turn">
			<h2 className="question">{turn.question}</h2>
			<div className="answer">
				<Stages turn={turn} />
				{turn.rewritten && <p className="rewritten">Searched for: {turn.rewritten}</p>}
				<div className={isOpen(turn) ? "text open" : "text"} dir="auto">
					<Markdown text={turn.text} open={isOpen(turn)} cite={cite} link={link} />
				</div>
				<Ending turn={turn} retry={retry} />
				<Sources sources={turn.sources} shown={shown} show={show} follow={follow} />
			</div>
		</article>
	);
}

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
			{atWork ? open && "..." : <time>{shownTime(stage.elapsedMs ?? 0)}</time>}
		</li>
	);
}

function shownTime(ms: number): string {
	return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function Ending({ turn, retry }: { turn: Turn; retry(): void }) {
	if (turn.reconnecting)
		return (
			<p className="notice" role="alert">
				Connection lost. Trying to come back…
			</p>
		);
	if (turn.status === "cancelled") return <p className="notice">Stopped. What was said is kept.</p>;
	if (turn.status !== "error") return null;
	return (
		<div className="notice failed" role="alert">
			<p>{turn.failure?.message ?? "The answer could not be finished."}</p>
			<button type="button" onClick={retry}>
				Retry
			</button>
		</div>
	);
}

interface SourcesProps {
	sources: Source[];
	shown: number | undefined;
	show(n: number | undefined): void;
	follow(address: string): void;
}

function Sources({ sources, shown, show, follow }: SourcesProps) {
	if (!sources.length) return null;
	return (
		<ol className="sources" aria-label="Sources">
			{sources.map((source) => (
				<li key={source.n}>
					<button
						type="button"
						aria-expanded={shown === source.n}
						onClick={() => show(shown === source.n ? undefined : source.n)}
					>
						<b>{source.n}</b> {source.title}
					</button>
					{shown === source.n && (
						<blockquote>
							<p>{source.snippet}</p>
							{source.url && (
								<button type="button" className="link" onClick={() => follow(source.url ?? "")}>
									{source.url}
								</button>
							)}
						</blockquote>
					)}
				</li>
			))}
		</ol>
	);
}
