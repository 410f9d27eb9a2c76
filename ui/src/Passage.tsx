/** The passage behind a source: shown where a reader points at its number. */

import { Popover } from "@base-ui/react/popover";
import { useContext, useEffect, useMemo, useState } from "react";
import { addressOf } from "./address";
import { Follow, Markdown } from "./Markdown";
import { chunkOf, citedStems, documentOf } from "./passages";
import type { ChunkRow, Source } from "./wire";

const HOVER_MS = 200;

export type PassageHandle = Popover.Handle<number>;

interface TriggerProps {
	handle: PassageHandle;
	n: number;
	title?: string;
}

/** `[n]` in the text, or, with a title, the entry of a list of sources. */
export function PassageTrigger({ handle, n, title }: TriggerProps) {
	return (
		<Popover.Trigger
			handle={handle}
			payload={n}
			openOnHover
			delay={HOVER_MS}
			className={title ? "source" : "citation"}
			aria-label={title ? undefined : `Source ${n}`}
		>
			{title ? (
				<>
					<b>{n}</b> {title}
				</>
			) : (
				`[${n}]`
			)}
		</Popover.Trigger>
	);
}

interface Props {
	handle: PassageHandle;
	sources: Source[];
	answer: string;
}

export function PassageWindow({ handle, sources, answer }: Props) {
	return (
		<Popover.Root handle={handle}>
			{({ payload }) => (
				<Popover.Portal>
					<Popover.Positioner sideOffset={6} collisionPadding={12} className="above">
						<Popover.Popup className="passage-window">
							{sources
								.filter(({ n }) => n === payload)
								.map((source) => (
									<Passage key={source.n} source={source} answer={answer} />
								))}
						</Popover.Popup>
					</Popover.Positioner>
				</Popover.Portal>
			)}
		</Popover.Root>
	);
}

function Passage({ source, answer }: { source: Source; answer: string }) {
	const follow = useContext(Follow);
	const chunk = useChunk(source);
	const marked = useMemo(() => citedStems(answer, source.n), [answer, source.n]);
	const place = { view: "document" as const, documentId: source.document_id };
	return (
		<>
			<Popover.Title className="passage-title">
				{source.n}. {source.title}
			</Popover.Title>
			{chunk?.heading && <p className="heading">{chunk.heading}</p>}
			<blockquote>
				<Markdown text={chunk?.text ?? source.snippet} marked={marked} />
			</blockquote>
			<p className="choices">
				{source.url && (
					<button type="button" className="link" onClick={() => follow(source.url ?? "")}>
						{hostOf(source.url)}
					</button>
				)}
				<a href={addressOf(chunk ? { ...place, chunk: chunk.position } : place)}>Open document</a>
			</p>
		</>
	);
}

/** The whole passage; until it is there, and where it is no more, its beginning is all there is. */
function useChunk(source: Source): ChunkRow | undefined {
	const [chunk, setChunk] = useState<ChunkRow>();
	useEffect(() => {
		documentOf(source.document_id)
			.then((document) => setChunk(chunkOf(document, source)))
			.catch(() => setChunk(undefined));
	}, [source]);
	return chunk;
}

function hostOf(address: string): string {
	return URL.canParse(address) ? new URL(address).host : address;
}
