/** The passage behind a source, and the words of it that an answer took. */

import { read } from "./server";
import type { ChunkRow, Source, WholeDocument } from "./wire";

/** Letters by which two forms of a word are known to be the same. */
const STEM = 5;
const SHORTEST = 4;
const KEPT = 20;

const documents = new Map<string, Promise<WholeDocument>>();

/** Read a document, once while it is among the last that were read and nothing was uploaded. */
export function documentOf(id: string): Promise<WholeDocument> {
	const known = documents.get(id);
	if (known) return known;
	const asked = read<WholeDocument>(routeOf(id));
	asked.catch(() => documents.get(id) === asked && documents.delete(id));
	documents.set(id, asked);
	for (const old of [...documents.keys()].slice(0, -KEPT)) documents.delete(old);
	return asked;
}

/** The server's address of a document, whose id may have slashes. */
export function routeOf(id: string): string {
	return `/documents/${id.split("/").map(encodeURIComponent).join("/")}`;
}

/** The collection has changed. */
export function forgetDocuments(): void {
	documents.clear();
}

/** The chunk that a source was cut from; undefined when the document was changed since. */
export function chunkOf(document: WholeDocument, source: Source): ChunkRow | undefined {
	const begin = source.snippet.replace(/…$/, "");
	return document.chunks.find(({ text }) => text.split(/\s+/).filter(Boolean).join(" ").startsWith(begin));
}

/** The stems of all words in sentences of the answer that cite source `n`. */
export function citedStems(answer: string, n: number): Set<string> {
	const words = sentencesOf(answer)
		.filter((sentence) => citedIn(sentence).includes(n))
		.flatMap((sentence) => sentence.match(/[\p{L}\p{N}]+/gu) ?? [])
		.filter((word) => word.length >= SHORTEST || /\d\D|\d\d/.test(word));
	return new Set(words.map(stemOf));
}

function citedIn(sentence: string): number[] {
	return [...sentence.matchAll(/\[(\d{1,2}(?:,\s*\d{1,2})*)\]/g)].flatMap(([, numbers = ""]) =>
		numbers.split(",").map(Number),
	);
}

export function stemOf(word: string): string {
	return word.toLowerCase().slice(0, STEM);
}

export interface Piece {
	text: string;
	marked: boolean;
}

/** Cut a text where words with these stems begin and end; short words between two of them are marked with them. */
export function piecesOf(text: string, stems: ReadonlySet<string>): Piece[] {
	const pieces: Piece[] = [];
	let run = "";
	let between = "";
	const close = () => {
		if (run) pieces.push({ text: run, marked: true });
		if (between) pieces.push({ text: between, marked: false });
		run = between = "";
	};
	for (const part of text.match(/[\p{L}\p{N}]+|[^\p{L}\p{N}]+/gu) ?? []) {
		if (stems.has(stemOf(part))) {
			if (run) run += between;
			else close();
			run += part;
			between = "";
		} else {
			between += part;
			if (/[.!?:;]/.test(part) || (part.length >= SHORTEST && /\p{L}/u.test(part))) close();
		}
	}
	close();
	return pieces;
}

/** Citations behind a full stop belong to the sentence before them. */
function sentencesOf(text: string): string[] {
	const sentences: string[] = [];
	for (const { segment } of new Intl.Segmenter("en", { granularity: "sentence" }).segment(text)) {
		const behind = /^(\s*\[[\d,\s]+\])+[.,;]?/.exec(segment)?.[0] ?? "";
		const before = sentences.pop() ?? "";
		sentences.push(before + behind, segment.slice(behind.length));
	}
	return sentences;
}
