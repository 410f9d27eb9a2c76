/** The collection: what is in it, what is added, and what a search finds. */

import { useCallback, useEffect, useState } from "react";
import { addressOf } from "./address";
import { Delete } from "./dialogs";
import { forgetDocuments, routeOf } from "./passages";
import { Search } from "./Search";
import { onKey, read, reasonOf, send } from "./server";
import { Upload, type Uploads } from "./Upload";
import { shownDate, shownSize } from "./units";
import type { DocumentPage, DocumentRow } from "./wire";

const PAGE = 100;

interface Props {
	query: string | undefined;
	search(query: string): void;
	uploads: Uploads;
}

export function Collection({ query, search, uploads }: Props) {
	const { documents, total, problem, more, again, version } = useDocuments();
	const [deleted, remove] = useState<DocumentRow>();
	const [refused, setRefused] = useState<string>();
	const deleteIt = ({ id }: DocumentRow) => {
		setRefused(undefined);
		send(routeOf(id), { method: "DELETE" })
			.catch((problem) => setRefused(reasonOf(problem)))
			.finally(again);
	};
	const ended = uploads.list.filter((upload) => upload.ended).length;
	// biome-ignore lint/correctness/useExhaustiveDependencies: an upload that has ended has changed the collection
	useEffect(again, [ended, again]);
	return (
		<section className="view">
			<h1>Collection</h1>
			<Search query={query} search={search} version={version} />
			<Upload {...uploads} />
			<h2>{total === undefined ? "Documents" : `${total.toLocaleString()} documents`}</h2>
			{(problem ?? refused) && (
				<p className="notice failed" role="alert">
					{problem ?? refused}
				</p>
			)}
			<Table documents={documents} remove={remove} />
			{total !== undefined && documents.length < total && (
				<button type="button" onClick={more}>
					Show more
				</button>
			)}
			{deleted && (
				<Delete
					what={`“${deleted.title}” will be found by nobody any more.`}
					deleted={() => deleteIt(deleted)}
					close={() => remove(undefined)}
				/>
			)}
		</section>
	);
}

function Table({ documents, remove }: { documents: DocumentRow[]; remove(document: DocumentRow): void }) {
	return (
		<div className="table">
			<table className="documents">
				<thead>
					<tr>
						<th>Title</th>
						<th className="figure">Size</th>
						<th className="figure minor">Passages</th>
						<th className="minor">Changed</th>
						<th>
							<span className="sr-only">Delete</span>
						</th>
					</tr>
				</thead>
				<tbody>
					{documents.map((document) => (
						<tr key={document.id}>
							<td>
								<a href={addressOf({ view: "document", documentId: document.id })}>{document.title}</a>
							</td>
							<td className="figure">{shownSize(document.size_bytes)}</td>
							<td className="figure minor">{document.chunk_count}</td>
							<td className="minor">{shownDate(document.updated_at)}</td>
							<td>
								<button
									type="button"
									className="icon"
									aria-label={`Delete ${document.title}`}
									onClick={() => remove(document)}
								>
									✕
								</button>
							</td>
						</tr>
					))}
				</tbody>
			</table>
		</div>
	);
}

/** As many documents as were asked for, by title; `again` reads them anew. */
function useDocuments() {
	const [found, setFound] = useState<{ documents: DocumentRow[]; total?: number }>({ documents: [] });
	const [problem, setProblem] = useState<string>();
	const [pages, setPages] = useState(1);
	const [version, setVersion] = useState(0);
	const again = useCallback(() => {
		forgetDocuments();
		setVersion((now) => now + 1);
	}, []);
	useEffect(() => onKey("known", again), [again]);
	// biome-ignore lint/correctness/useExhaustiveDependencies: a new version is what they are read again for
	useEffect(() => {
		const leave = new AbortController();
		const asked = Array.from({ length: pages }, (_, n) =>
			read<DocumentPage>(`/documents?limit=${PAGE}&offset=${n * PAGE}`, { signal: leave.signal }),
		);
		Promise.all(asked)
			.then((read) => {
				setFound({ documents: read.flatMap((page) => page.documents), total: read.at(-1)?.total ?? 0 });
				setProblem(undefined);
			})
			.catch((problem) => leave.signal.aborted || setProblem(reasonOf(problem)));
		return () => leave.abort();
	}, [pages, version]);
	return { ...found, problem, more: () => setPages((now) => now + 1), again, version };
}
