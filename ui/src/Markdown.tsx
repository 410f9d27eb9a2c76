/** An answer's text: Markdown that may still lack its end, with nothing in it that could reach another host by itself. */

import { findAndReplace, type RegExpMatchObject } from "mdast-util-find-and-replace";
import { memo, type ReactNode } from "react";
import ReactMarkdown, { type Components } from "react-markdown";
import remarkGfm from "remark-gfm";
import remend from "remend";

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
	return (
		<ReactMarkdown remarkPlugins={[remarkGfm, citations]} components={components}>
			{text}
		</ReactMarkdown>
	);
});

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

/** Make `[1]` an element of its own, wherever it is text. */
function citations() {
	return (tree: Parameters<typeof findAndReplace>[0]) =>
		findAndReplace(tree, [
			/\[(\d{1,2})\]/g,
			(_: string, n: string, __: RegExpMatchObject) => ({
				type: "strong",
				data: { hName: "cite" },
				children: [{ type: "text", value: n }],
			}),
		]);
}
