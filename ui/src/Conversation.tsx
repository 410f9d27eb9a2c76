/** Questions and answers, and the box for the next question. */

import { useLayoutEffect, useRef } from "react";
import { Answer } from "./Answer";
import { Composer } from "./Composer";
import { labelOf, type Turn } from "./turns";
import type { Asking } from "./useConversations";

const EXAMPLES = [
	"What are the side effects of aripiprazole?",
	"How does metformin work?",
	"What is lithium used for?",
];
const AT_END_PX = 80;
/** Where readers have scrolled to, by a conversation's first question, for when they come back to it. */
const places = new Map<string, number>();

interface Props {
	asking: Asking;
	opened: string | undefined;
	/** What is written in the box. */
	draft: string;
	setDraft(text: string): void;
}

export function Conversation({ asking, opened, draft, setDraft }: Props) {
	const { turns, ask, retry, stop, busy, loading, problem, reopen } = asking;
	return (
		<>
			<h1 className="sr-only">Conversation</h1>
			<Turns turns={turns}>
				{problem && (
					<div className="notice failed" role="alert">
						<p>{problem}</p>
						<button type="button" onClick={reopen}>
							Retry
						</button>
					</div>
				)}
				{turns.map((turn) => (
					<Answer key={turn.key} turn={turn} retry={retry} busy={busy} />
				))}
				{!turns.length && !opened && <Welcome ask={ask} />}
			</Turns>
			<p className="sr-only" aria-live="polite">
				{spoken(turns.at(-1))}
			</p>
			<Composer busy={busy} loading={loading} ask={ask} stop={stop} text={draft} setText={setDraft} />
		</>
	);
}

function Welcome({ ask }: { ask(question: string): void }) {
	return (
		<section className="welcome">
			<h2>Ask, and watch the answer being made</h2>
			<p>Every answer cites the passages that it rests on.</p>
			<ul>
				{EXAMPLES.map((question) => (
					<li key={question}>
						<button type="button" onClick={() => ask(question)}>
							{question}
						</button>
					</li>
				))}
			</ul>
		</section>
	);
}

/** What a screen reader is told: the stage at work, and the answer when it is whole; nothing of stored answers. */
function spoken(turn: Turn | undefined): string {
	if (!turn?.lastId) return "";
	if (turn.status === "completed") return turn.text.replaceAll(/\s?\[\d+\]|[*_`#|~]+/g, "");
	if (turn.status === "cancelled") return "Stopped.";
	const stage = turn.stages.findLast(({ elapsedMs }) => elapsedMs === undefined);
	return stage ? `${labelOf(stage.name)}...` : "";
}

/** Keeps the end in view while an answer grows, unless the reader has scrolled away from it. */
function Turns({ turns, children }: { turns: Turn[]; children: React.ReactNode }) {
	const list = useRef<HTMLDivElement>(null);
	const following = useRef(true);
	/** Where the list was left when its end was last brought into view. */
	const left = useRef(0);
	const last = turns.at(-1);
	const first = turns[0]?.key;

	// biome-ignore lint/correctness/useExhaustiveDependencies: another question is at the end
	useLayoutEffect(() => {
		following.current = true;
		left.current = 0;
	}, [last?.key]);
	useLayoutEffect(() => {
		const place = places.get(first ?? "");
		following.current = place === undefined;
		if (place !== undefined && list.current) list.current.scrollTop = place;
	}, [first]);
	// biome-ignore lint/correctness/useExhaustiveDependencies: whatever changes in the last turn may make it longer
	useLayoutEffect(() => {
		if (!following.current || !list.current) return;
		if (list.current.scrollTop < left.current - AT_END_PX) {
			following.current = false; // scrolled in this very moment: the event of it is still to come
			return;
		}
		list.current.scrollTop = list.current.scrollHeight;
		left.current = list.current.scrollTop;
	}, [last]);

	const scrolled = () => {
		const { scrollHeight = 0, scrollTop = 0, clientHeight = 0 } = list.current ?? {};
		following.current = scrollHeight - scrollTop - clientHeight < AT_END_PX;
		if (first === undefined) return;
		if (following.current) places.delete(first);
		else places.set(first, scrollTop);
	};
	return (
		// biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
		<section className="turns" aria-label="Questions and answers" ref={list} onScroll={scrolled} tabIndex={0}>
			{children}
		</section>
	);
}
