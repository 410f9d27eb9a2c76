/** Markdown that may still lack its end, with nothing in it that could reach another host by itself. */

import { findAndReplace } from "mdast-util-find-and-replace";
import { createContext, memo, type ReactNode, useContext, useRef } from "react";
import ReactMarkdown, { type Components, type Options } from "react-markdown";
import remarkGfm from "remark-gfm";
import remend from "remend";
import { Copy } from "./Copy";
import { piecesOf } from "./passages";

/** What a click on a link does. */
export const Follow = createContext<(address: string) => void>(() => undefined);
/** What stands for `[n]`; without it, `[n]` is text. */
export const Cite = createContext<((n: number) => ReactNode) | undefined>(undefined);

type Tree = Parameters<typeof findAndReplace>[0];

const DEEPEST = 100;
/** Quotes and lists as deep as that on one line, which the parser would take seconds for. */
const DEEP_LINE = /^[ \t]*(?:(?:>|(?:[-+*]|\d{1,9}[.)])[ \t])[ \t]*){100}/m;

interface Props {
	text: string;
	/** Whether more is to come. */
	open?: boolean;
	/** Whether `[n]` is a citation. */
	cited?: boolean;
	/** Words with these stems are marked. */
	marked?: ReadonlySet<string>;
}

export function Markdown({ text, open = false, cited = false, marked }: Props) {
	const blocks = blocksOf(text);
	return blocks.map((block, n) => (
		<Block
			// biome-ignore lint/suspicious/noArrayIndexKey: blocks are only ever appended
			key={n}
			text={open && n === blocks.length - 1 ? remend(block) : block}
			cited={cited}
			marked={marked}
		/>
	));
}

interface BlockProps {
	text: string;
	cited: boolean;
	marked: ReadonlySet<string> | undefined;
}

const Block = memo(function Block({ text, cited, marked }: BlockProps) {
	const plugins: NonNullable<Options["remarkPlugins"]> = [remarkGfm, shallow];
	if (cited) plugins.push(citations);
	if (marked) plugins.push([marking, marked]);
	try {
		if (DEEP_LINE.test(text)) throw new RangeError("nested too deeply");
		return ReactMarkdown({ remarkPlugins: plugins, components: COMPONENTS, urlTransform: asGiven, children: text });
	} catch {
		return <Code>{text}</Code>; // the parser may run out of stack, too
	}
});

/** No address becomes one of an element: they are shown, and what is no web address is not opened. */
const asGiven = (address: string) => address;

const COMPONENTS: Components = {
	img: ({ alt }) => <span className="image">[{alt || "image"}]</span>,
	a: ({ href, children }) => <Link address={href ?? ""}>{children}</Link>,
	cite: ({ children }) => <Citation n={Number(children)} />,
	pre: ({ children }) => <Code>{children}</Code>,
	table: ({ children }) => (
		<div className="table">
			<table>{children}</table>
		</div>
	),
};

function Link({ address, children }: { address: string; children: ReactNode }) {
	const follow = useContext(Follow);
	return (
		<button type="button" className="link" onClick={() => follow(address)}>
			{children}
		</button>
	);
}

function Citation({ n }: { n: number }) {
	return useContext(Cite)?.(n) ?? `[${n}]`;
}

function Code({ children }: { children: ReactNode }) {
	const code = useRef<HTMLPreElement>(null);
	return (
		<div className="code">
			{/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls sideways must be reached by keyboard */}
			<pre ref={code} tabIndex={0}>
				{children}
			</pre>
			<Copy label="Copy code" text={() => code.current?.textContent ?? ""} />
		</div>
	);
}

const FENCE = /^ {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)/;
/** A line that belongs to what is before it even behind a blank one: blank, indented, or a list's next item. */
const GOES_ON = /^(?:$|\s|(?:[-+*]|\d{1,9}[.)])(?:\s|$))/;
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

/** Make `[1]` an element of its own, wherever it is text; `[1, 2]` are two. */
function citations() {
	const replaced = (_: string, numbers: string) => numbers.split(",").map((n) => named("cite", n.trim()));
	return (tree: Tree) =>
		findAndReplace(tree, [/\[(\d{1,2}(?:,\s*\d{1,2})*)\]/g, replaced], { ignore: ["link", "linkReference"] }); // a button holds no other
}

/** Mark the words that have one of these stems. */
function marking(stems: ReadonlySet<string>) {
	const replaced = (text: string) =>
		piecesOf(text, stems).map((piece) =>
			piece.marked ? named("mark", piece.text) : { type: "text" as const, value: piece.text },
		);
	return (tree: Tree) => findAndReplace(tree, [/.+/gs, replaced]);
}

function named(hName: string, value: string) {
	return { type: "strong" as const, data: { hName }, children: [{ type: "text" as const, value }] };
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
