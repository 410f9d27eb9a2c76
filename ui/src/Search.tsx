/** A search without an answer: what was found, and how each part of the retrieval judged it. */

import { type FormEvent, useEffect, useState } from "react";
import { addressOf } from "./address";
import { read, reasonOf, withBody } from "./server";
import type { Passage, SearchResult } from "./wire";

const FOUND = 10;
const LABELS: Record<string, string> = { dense: "Meaning", lexical: "Words", fused: "Fused", reranked: "Reranked" };

interface Props {
	/** What is searched for; nothing yet. */
	query: string | undefined;
	search(query: string): void;
	/** Changes when the collection has changed. */
	version: number;
}

export function Search({ query, search, version }: Props) {
	const [text, setText] = useState("");
	const [attempt, setAttempt] = useState(0);
	const { result, problem, searching } = useResult(query, version + attempt);
	useEffect(() => setText(query ?? ""), [query]);
	const submit = (event: FormEvent) => {
		event.preventDefault();
		if (!text.trim()) return;
		search(text.trim());
		setAttempt((now) => now + 1);
	};
	return (
		<search>
			<form className="search" onSubmit={submit}>
				<input
					type="search"
					aria-label="Search the collection"
					placeholder="Search the collection, and see how each part judges"
					value={text}
					onChange={(event) => setText(event.target.value)}
				/>
				<button type="submit" className="primary" disabled={searching || !text.trim()}>
					Search
				</button>
			</form>
			{problem && (
				<p className="notice failed" role="alert">
					{problem}
				</p>
			)}
			<p className="sr-only" role="status">
				{result && !searching && `${result.passages.length} passages found`}
			</p>
			{result && <Found result={result} />}
		</search>
	);
}

function useResult(query: string | undefined, version: number) {
	const [found, setFound] = useState<{ query: string; result?: SearchResult; problem?: string }>();
	// biome-ignore lint/correctness/useExhaustiveDependencies: in another collection something else is found
	useEffect(() => {
		if (query === undefined) return;
		const left = new AbortController();
		read<SearchResult>("/search", { ...withBody("POST", { query, limit: FOUND }), signal: left.signal })
			.then((result) => setFound({ query, result }))
			.catch((problem) => left.signal.aborted || setFound({ query, problem: reasonOf(problem) }));
		return () => left.abort();
	}, [query, version]);
	if (query === undefined) return { searching: false };
	return { result: found?.result, problem: found?.problem, searching: found?.query !== query };
}

function Found({ result }: { result: SearchResult }) {
	if (!result.passages.length) return <p className="notice">Nothing was found.</p>;
	const parts = Object.keys(result.passages[0]?.scores ?? {});
	const best = new Map(parts.map((part) => [part, Math.max(...result.passages.map((p) => p.scores?.[part] ?? 0))]));
	return (
		<div className="table">
			<table className="found">
				<caption>Ordered by: {result.method}</caption>
				<thead>
					<tr>
						<th>Passage</th>
						{parts.map((part) => (
							<th key={part} className="figure">
								{LABELS[part] ?? part}
							</th>
						))}
					</tr>
				</thead>
				<tbody>
					{result.passages.map((passage) => (
						<tr key={passage.chunk_id}>
							<td>
								<Place passage={passage} />
							</td>
							{parts.map((part) => (
								<Score
									key={part}
									part={LABELS[part] ?? part}
									score={passage.scores?.[part]}
									best={best.get(part) ?? 1}
								/>
							))}
						</tr>
					))}
				</tbody>
			</table>
		</div>
	);
}

function Place({ passage }: { passage: Passage }) {
	const place = { view: "document" as const, documentId: passage.document_id, chunk: passage.position ?? 0 };
	return (
		<>
			<a href={addressOf(place)}>{passage.title}</a>
			{passage.heading && <span className="heading"> {passage.heading}</span>}
			<p className="snippet">{passage.text}</p>
		</>
	);
}

function Score({ part, score, best }: { part: string; score: number | undefined; best: number }) {
	if (score === undefined) return <td className="figure">–</td>;
	const width = best > 0 ? Math.max(0, Math.min(100, (100 * score) / best)) : 0;
	return (
		<td className="figure">
			<span className="part" aria-hidden="true">
				{part}
			</span>
			{score.toFixed(score < 10 ? 3 : 1)}
			<div className="score" aria-hidden="true">
				<div style={{ width: `${width}%` }} />
			</div>
		</td>
	);
}
