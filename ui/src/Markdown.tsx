/** An answer's text: Markdown that may still lack its end, with nothing in it that could reach another host by itself. */

import { findAndReplace, type RegExpMatchObject } from "mdast-util-find-and-replace";
import { memo, type ReactNode } from "react";
import ReactMarkdown, { type Components } from "react-markdown";
import remarkGfm from "remark-gfm";
import remend from "remend";

type Tree = Parameters<typeof findAndReplace>[0];

const DEEPEST = 100;
/** Quotes and lists as deep as that on one line, which the parser would take seconds for. */
const DEEP_LINE = /^[ \t]*(?:(?:>|(?:[-+*]|\d{1,9}[.)])[ \t])[ \t]*){100}/m;

interface Props {
	text: string;
	/** Whether more is to come. */
	open: boolean;
	cite(n: number): ReactNode;
	link(address: string, text: ReactNode): ReactNode;
}

export function Markdown({ text, open, cite, link }: Props) {
	const blocks = blocksOf(text);
	return blocks.map((block, n) => (
		<Block
			// biome-ignore lint/suspicious/noArrayIndexKey: blocks are only ever appended
			key={n}
			text={open && n === blocks.length - 1 ? remend(block) : block}
			cite={cite}
			link={link}
		/>
	));
}

const Block = memo(function Block({ text, cite, link }: Omit<Props, "open">) {
	const components: Components = {
		img: ({ alt }) => <span className="image">[{alt || "image"}]</span>,
		a: ({ href, children }) => link(href ?? "", children),
		cite: ({ children }) => cite(Number(children)),
		table: ({ children }) => (
			<div className="table">
				<table>{children}</table>
			</div>
		),
	};
	try {
		if (DEEP_LINE.test(text)) throw new RangeError("nested too deeply");
		return ReactMarkdown({ remarkPlugins: [remarkGfm, citations, shallow], components, children: text });
	} catch {
		return <pre>{text}</pre>; // the parser may run out of stack, too
	}
});

const FENCE = /^ {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)/;
/** A line that belongs to what is before it even behind a blank one: indented, or a list's next item. */
const GOES_ON = /^(?:\s|(?:[-+*]|\d{1,9}[.)])(?:\s|$))/;
/** What a link or a footnote anywhere in the text may refer to; numbers are citations. */
const DEFINITION = /^ {0,3}\[(?!\d{1,2}\])[^\]\n]+\]:/m;

/** Cut at blank lines where a block surely ends, so that what is whole is not rendered again with every token. */
export function blocksOf(text: string): string[] {
	if (DEFINITION.test(text)) return [text];
	const blocks: string[][] = [[]];
	let fence = "";
	let blank = false;
	for (const line of text.split("\n")) {
		if (blank && !fence && !GOES_ON.test(line)) blocks.push([]);
		const [, mark = "", info = ""] = FENCE.exec(line) ?? [];
		if (!fence) fence = mark;
		else if (mark.startsWith(fence) && !info.trim()) fence = "";
		blank = line.trim() === "";
		blocks.at(-1)?.push(line);
	}
	return blocks.map((lines) => lines.join("\n"));
}

/** Make `[1]` an element of its own, wherever it is text. */
function citations() {
	return (tree: Tree) =>
		findAndReplace(
			tree,
			[
				/\[(\d{1,2})\]/g,
				(_: string, n: string, __: RegExpMatchObject) => ({
					type: "strong",
					data: { hName: "cite" },
					children: [{ type: "text", value: n }],
				}),
			],
			{ ignore: ["link", "linkReference"] }, // a button holds no other
		);
}

/** Refuse what is nested so deeply that React, or the browser, would run out of stack. */
function shallow() {
	return (tree: Tree) => {
		let level: Tree[] = [tree];
		for (let depth = 0; level.length; depth++) {
			if (depth > DEEPEST) throw new RangeError("nested too deeply");
			level = level.flatMap((node) => ("children" in node ? node.children : []));
		}
	};
}
