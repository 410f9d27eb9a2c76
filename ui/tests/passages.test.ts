import { expect, test } from "vitest";
import { addressOf, type Place, placeOf } from "../src/address";
import { blocksOf } from "../src/Markdown";
import { chunkOf, citedStems, piecesOf, stemOf } from "../src/passages";
import type { Source, WholeDocument } from "../src/wire";

test("the words of the sentences that cite a source are found, a citation behind the full stop included", () => {
	const answer = "Lithium steadies mood [2]. It takes 0.5 to 3 weeks. [1] Blood tests are needed [1][3].";
	expect(citedStems(answer, 1)).toEqual(new Set(["takes", "weeks", "blood", "tests", "neede"]));
	expect(citedStems(answer, 2)).toEqual(new Set(["lithi", "stead"]).add("mood"));
	expect(citedStems(answer, 4)).toEqual(new Set());
	expect(stemOf("Treated")).toBe(stemOf("treats"));
});

test("words of a sentence are marked in one piece, with the short words between them, and no text is lost", () => {
	const text = "The most common side effects of it are nausea, headache. Others are rare.";
	const pieces = piecesOf(text, citedStems("Side effects are nausea and headaches [1].", 1));
	expect(pieces.filter(({ marked }) => marked).map((piece) => piece.text)).toEqual([
		"side effects of it are nausea, headache",
	]);
	expect(pieces.map((piece) => piece.text).join("")).toBe(text);
	expect(piecesOf("", new Set(["x"]))).toEqual([]);
});

test("the chunk of a source is found by its beginning, however its lines were broken", () => {
	const chunk = { id: 1, position: 3, heading: "", text: "One  line\n\nand another of it" };
	const document = { chunks: [{ ...chunk, id: 2, position: 2, text: "Else" }, chunk] } as WholeDocument;
	const source = {
		n: 1,
		document_id: "d",
		title: "D",
		url: null,
		score: 1,
		snippet: "One line and another…",
	} as Source;
	expect(chunkOf(document, source)).toBe(chunk);
	expect(chunkOf(document, { ...source, snippet: "gone" })).toBeUndefined();
});

test.each<Place>([
	{ view: "conversation" },
	{ view: "conversation", sessionId: "test-session:1.2" },
	{ view: "collection" },
	{ view: "collection", query: "what? is 50 % of #1 & more" },
	{ view: "document", documentId: "notes/a b?c#d%2F.md" },
	{ view: "document", documentId: "https://example.com//x/", chunk: 12 },
])("a place is found again by its address: %o", (place) => {
	expect(placeOf(addressOf(place))).toEqual(place);
});

test("an address that is broken leads to a new conversation, and throws nothing", () => {
	for (const hash of ["", "#", "#/nowhere", "#/document/"]) expect(placeOf(hash)).toEqual({ view: "conversation" });
	expect(placeOf("#/session/%E0%A4")).toEqual({ view: "conversation", sessionId: "%E0%A4" });
});

test("blocks end at blank lines, but not within fenced code or lists, nor where a link needs its definition", () => {
	expect(blocksOf("a\nb\n\nc")).toEqual(["a\nb\n", "c"]);
	expect(blocksOf("```\na\n\nb\n```\n\nc")).toEqual(["```\na\n\nb\n```\n", "c"]);
	expect(blocksOf("- a\n\n- b\n\nc")).toEqual(["- a\n\n- b\n", "c"]);
	expect(blocksOf("[a][x]\n\n[x]: https://example.com")).toEqual(["[a][x]\n\n[x]: https://example.com"]);
});
