/** A document of the collection, and in it the passage that was cited or found. */

import { useContext, useEffect, useRef, useState } from "react";
import { addressOf } from "./address";
import { Follow, Markdown } from "./Markdown";
import { documentOf } from "./passages";
import { onKey, reasonOf } from "./server";
import { shownDate, shownSize } from "./units";
import type { WholeDocument } from "./wire";

export function DocumentView({ documentId, chunk }: { documentId: string; chunk: number | undefined }) {
	const [document, setDocument] = useState<WholeDocument>();
	const [problem, setProblem] = useState<string>();
	const [attempt, setAttempt] = useState(0);
	useEffect(() => onKey("known", () => setAttempt((now) => now + 1)), []);
	// biome-ignore lint/correctness/useExhaustiveDependencies: what was refused is tried again with another key
	useEffect(() => {
		setProblem(undefined);
		documentOf(documentId)
			.then(setDocument)
			.catch((problem) => setProblem(reasonOf(problem)));
	}, [documentId, attempt]);
	return (
		<section className="view">
			<a className="back" href={addressOf({ view: "collection" })}>
				Collection
			</a>
			{problem && (
				<p className="notice failed" role="alert">
					{problem}
				</p>
			)}
			{document && <Head document={document} />}
			{document && <Body document={document} chunk={chunk} />}
		</section>
	);
}

function Head({ document }: { document: WholeDocument }) {
	const follow = useContext(Follow);
	const { url, metadata } = document;
	return (
		<header>
			<h1>{document.title}</h1>
			<p className="soft">
				{shownSize(document.size_bytes)} · {document.chunk_count} passages · {shownDate(document.updated_at)}
			</p>
			{url && (
				<button type="button" className="link" onClick={() => follow(url)}>
					{url}
				</button>
			)}
			{Object.keys(metadata).length > 0 && (
				<dl className="metadata">
					{Object.entries(metadata).map(([name, value]) => (
						<div key={name}>
							<dt>{name}</dt>
							<dd>{shownValue(value)}</dd>
						</div>
					))}
				</dl>
			)}
		</header>
	);
}

function shownValue(value: unknown): string {
	if (Array.isArray(value)) return value.map(shownValue).join(", ");
	return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function Body({ document, chunk }: { document: WholeDocument; chunk: number | undefined }) {
	const passage = useRef<HTMLElement>(null);
	const [before, wanted, behind] = cut(document, chunk);
	// biome-ignore lint/correctness/useExhaustiveDependencies: another passage is another place to scroll to
	useEffect(() => {
		passage.current?.scrollIntoView({ block: "center" });
	}, [chunk]);
	return (
		<div className="text" dir="auto">
			<Markdown text={before} />
			{wanted && (
				<section className="passage" aria-label="Passage" ref={passage}>
					<Markdown text={wanted} />
				</section>
			)}
			<Markdown text={behind} />
		</div>
	);
}

/** The text before the passage, the passage, and the text behind it; a passage is in its document word for word. */
function cut({ title, text: whole, chunks }: WholeDocument, position: number | undefined): [string, string, string] {
	const text = whole.startsWith(`# ${title}\n`) ? whole.slice(title.length + 3) : whole; // it stands above already
	const wanted = chunks.find((chunk) => chunk.position === position)?.text;
	const at = wanted ? text.indexOf(wanted) : -1;
	if (!wanted || at < 0) return [text, "", ""];
	return [text.slice(0, at), wanted, text.slice(at + wanted.length)];
}
