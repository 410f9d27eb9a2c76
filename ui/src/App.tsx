/** The page: conversations at the side; in the middle the open one, the collection, or a document of it. */

import { useCallback, useEffect, useRef, useState } from "react";
import { type Place, usePlace } from "./address";
import { Collection } from "./Collection";
import { Conversation } from "./Conversation";
import { DocumentView } from "./DocumentView";
import { AskForKey, FollowLink } from "./dialogs";
import { Follow } from "./Markdown";
import { Sidebar } from "./Sidebar";
import { onKey } from "./server";
import { useUploads } from "./Upload";
import { useConversations } from "./useConversations";

export function App() {
	const [place, go] = usePlace();
	const [opened, setOpened] = useState(place.view === "conversation" ? place.sessionId : undefined);
	const [address, follow] = useState<string>();
	const [needsKey, needKey] = useState(false);
	const [draft, setDraft] = useState("");
	const isConversation = place.view === "conversation";
	if (isConversation && place.sessionId !== opened) setOpened(place.sessionId);
	const main = useRef<HTMLElement>(null);
	const inView = useRef(isConversation);
	inView.current = isConversation;

	const begun = useCallback(
		(sessionId: string) => (inView.current ? go({ view: "conversation", sessionId }) : setOpened(sessionId)),
		[go],
	);
	const asking = useConversations(opened, begun);
	const uploads = useUploads();
	useEffect(() => onKey("needed", () => needKey(true)), []);

	useTitle(place, asking.turns[0]?.question);

	const search = (query: string) => go({ view: "collection", query });
	const begin = () => {
		asking.begin();
		go({ view: "conversation" });
	};
	return (
		<Follow value={follow}>
			<div className="page">
				<Sidebar place={place} go={go} begin={begin} skip={() => main.current?.focus()} answering={asking.answering} />
				<main ref={main} tabIndex={-1}>
					{isConversation && <Conversation asking={asking} opened={opened} draft={draft} setDraft={setDraft} />}
					{place.view === "collection" && <Collection query={place.query} search={search} uploads={uploads} />}
					{place.view === "document" && (
						<DocumentView key={place.documentId} documentId={place.documentId} chunk={place.chunk} />
					)}
				</main>
			</div>
			{address !== undefined && <FollowLink address={address} close={() => follow(undefined)} />}
			{needsKey && <AskForKey close={() => needKey(false)} />}
		</Follow>
	);
}

/** Tells several tabs from one another. */
function useTitle(place: Place, question: string | undefined) {
	const shown = place.view === "conversation" ? question : place.view === "document" ? place.documentId : "Collection";
	useEffect(() => {
		document.title = shown ? `${shown} · Stagecast` : "Stagecast";
	}, [shown]);
}
