/** The page: conversations at the side, the open one in the middle. */

import { useCallback, useEffect, useRef, useState } from "react";
import { Answer } from "./Answer";
import { useAddress } from "./address";
import { Composer } from "./Composer";
import { AskForKey, FollowLink } from "./dialogs";
import { Sessions } from "./Sessions";
import { labelOf, type Turn } from "./turns";
import { useConversation } from "./useConversation";

const EXAMPLES = [
	"What are the side effects of aripiprazole?",
	"How does metformin work?",
	"What is lithium used for?",
];
const AT_END_PX = 80;

export function App() {
	const [opened, open] = useAddress();
	const [address, follow] = useState<string>();
	const [needsKey, needKey] = useState(false);
	const [version, setVersion] = useState(0);
	const refresh = useCallback(() => setVersion((now) => now + 1), []);
	const { conversation, ask, stop, busy, problem } = useConversation(opened, open);
	const turns = conversation.turns;
	const end = useFollowing(turns.at(-1));

	useEffect(() => {
		if (!busy) refresh();
	}, [busy, refresh]);

	return (
		<div className="page">
			<Sessions opened={opened} open={open} version={version} refused={() => needKey(true)} />
			<main>
				<h1 className="sr-only">Conversation</h1>
				<div className="turns">
					{problem && (
						<p className="notice failed" role="alert">
							{problem}
						</p>
					)}
					{turns.map((turn) => (
						<Answer key={turn.key} turn={turn} retry={() => ask(turn.question)} follow={follow} />
					))}
					{!turns.length && !opened && <Welcome ask={ask} />}
					<div ref={end} />
				</div>
				<p className="sr-only" aria-live="polite">
					{spoken(turns.at(-1))}
				</p>
				<Composer busy={busy} ask={ask} stop={stop} />
			</main>
			{address !== undefined && <FollowLink address={address} close={() => follow(undefined)} />}
			{needsKey && <AskForKey close={() => needKey(false)} known={refresh} />}
		</div>
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

/** What a screen reader is told: the stage at work, and the answer when it is whole. */
function spoken(turn: Turn | undefined): string {
	if (!turn) return "";
	if (turn.status === "completed") return turn.text;
	if (turn.status === "cancelled") return "Stopped.";
	const stage = turn.stages.findLast(({ elapsedMs }) => elapsedMs === undefined);
	return stage ? `${labelOf(stage.name)}...` : "";
}

/** Keeps the end in view while an answer grows, unless the reader has scrolled away from it. */
function useFollowing(last: Turn | undefined) {
	const end = useRef<HTMLDivElement>(null);
	const following = useRef(true);
	useEffect(() => {
		const list = end.current?.parentElement;
		const scrolled = () => {
			if (list) following.current = list.scrollHeight - list.scrollTop - list.clientHeight < AT_END_PX;
		};
		list?.addEventListener("scroll", scrolled);
		return () => list?.removeEventListener("scroll", scrolled);
	}, []);
	// biome-ignore lint/correctness/useExhaustiveDependencies: whatever changes in the last turn may make it longer
	useEffect(() => {
		if (following.current) end.current?.scrollIntoView({ block: "end" });
	}, [last]);
	return end;
}
