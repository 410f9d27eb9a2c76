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
	const plugins: NonNullable<Options["remarkPlugins"]> = [remarkGfm];
	if (cited) plugins.push(citations);
	if (marked) plugins.push([marking, marked]);
	return (
		<ReactMarkdown remarkPlugins={plugins} components={COMPONENTS}>
			{text}
		</ReactMarkdown>
	);
});

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

/** Cut at blank lines outside of fenced code, so that what is whole is not rendered again with every token. */
export function blocksOf(text: string): string[] {
	const blocks: string[][] = [[]];
	let fence = "";
	for (const line of text.split("\n")) {
		const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1] ?? "";
		if (!fence) fence = mark;
		else if (mark.startsWith(fence)) fence = "";
		if (!fence && line.trim() === "" && !mark) blocks.push([]);
		else blocks.at(-1)?.push(line);
	}
	return blocks.filter((lines) => lines.length).map((lines) => lines.join("\n"));
}

type Tree = Parameters<typeof findAndReplace>[0];

/** Make `[1]` an element of its own, wherever it is text. */
function citations() {
	return (tree: Tree) => findAndReplace(tree, [/\[(\d{1,2})\]/g, (_: string, n: string) => named("cite", n)]);
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
