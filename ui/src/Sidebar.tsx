/** The way to everything: new conversation, collection, and the list of conversations. */

import { useCallback, useEffect, useState } from "react";
import { addressOf, type Place } from "./address";
import { Delete, Rename } from "./dialogs";
import icon from "./icon.svg";
import { onKey, read, reasonOf, send, withBody } from "./server";
import type { SessionPage, SessionRow } from "./wire";

const LISTED = 1000;

interface Props {
	place: Place;
	go(place: Place): void;
	/** Begin a new conversation. */
	begin(): void;
	/** Go past all of this, to the main part of the page. */
	skip(): void;
	answering: string[];
}

export function Sidebar({ place, go, begin, skip, answering }: Props) {
	const [unfolded, unfold] = useState(false);
	// biome-ignore lint/correctness/useExhaustiveDependencies: on a narrow page the list makes room for what was chosen
	useEffect(() => unfold(false), [place]);
	return (
		<nav className={unfolded ? "sidebar unfolded" : "sidebar"} aria-label="Conversations">
			<button type="button" className="skip" onClick={skip}>
				Skip the conversations
			</button>
			<header>
				<img src={icon} alt="" width="26" height="26" />
				<span className="brand">Stagecast</span>
				<button type="button" className="unfold" aria-expanded={unfolded} onClick={() => unfold(!unfolded)}>
					Menu
				</button>
				<button type="button" onClick={begin}>
					New
				</button>
			</header>
			<div className="fold">
				<a
					className="entry"
					href={addressOf({ view: "collection" })}
					aria-current={place.view === "collection" ? "page" : undefined}
				>
					Collection
				</a>
				<Sessions place={place} go={go} answering={answering} />
			</div>
		</nav>
	);
}

function Sessions({ place, go, answering }: Omit<Props, "begin" | "skip">) {
	const [sessions, setSessions] = useState<SessionRow[]>([]);
	const [wanted, setWanted] = useState("");
	const [version, setVersion] = useState(0);
	/** Why the list is not as it is on the server. */
	const [unread, setUnread] = useState<string>();
	const [problem, setProblem] = useState<string>();
	const [renamed, rename] = useState<SessionRow>();
	const [deleted, remove] = useState<SessionRow>();
	const opened = place.view === "conversation" ? place.sessionId : undefined;
	const again = useCallback(() => setVersion((now) => now + 1), []);

	useEffect(() => onKey("known", again), [again]);
	// biome-ignore lint/correctness/useExhaustiveDependencies: a new version, or the end of an answer, is what it is read again for
	useEffect(() => {
		const left = new AbortController();
		read<SessionPage>(`/sessions?limit=${LISTED}`, { signal: left.signal })
			.then((page) => {
				setSessions(page.sessions);
				setUnread(undefined);
			})
			.catch((problem) => left.signal.aborted || setUnread(reasonOf(problem)));
		return () => left.abort();
	}, [version, answering.join(), opened]);

	const change = (session: SessionRow, init: RequestInit, changed?: () => void) => {
		setProblem(undefined);
		send(`/sessions/${encodeURIComponent(session.id)}`, init)
			.then(changed)
			.catch((problem) => setProblem(reasonOf(problem)))
			.finally(again);
	};
	const deleteIt = (session: SessionRow) =>
		change(session, { method: "DELETE" }, () => session.id === opened && go({ view: "conversation" }));

	const found = sessions.filter((session) => session.title.toLowerCase().includes(wanted.toLowerCase()));
	return (
		<>
			<input
				type="search"
				aria-label="Search conversations"
				placeholder="Search conversations"
				value={wanted}
				onChange={(event) => setWanted(event.target.value)}
			/>
			{problem && (
				<p className="notice failed" role="alert">
					{problem}
				</p>
			)}
			{unread && <p className="soft">{unread}</p>}
			<ul>
				{found.map((session) => (
					<SessionEntry
						key={session.id}
						session={session}
						opened={session.id === opened}
						answering={answering.includes(session.id)}
						rename={() => rename(session)}
						remove={() => remove(session)}
					/>
				))}
			</ul>
			{sessions.length > 0 && !found.length && <p className="soft">No conversation has this title.</p>}
			{renamed && (
				<Rename
					title={renamed.title}
					renamed={(title) => change(renamed, withBody("PATCH", { title }))}
					close={() => rename(undefined)}
				/>
			)}
			{deleted && (
				<Delete
					what={`“${deleted.title}” with all its questions and answers.`}
					deleted={() => deleteIt(deleted)}
					close={() => remove(undefined)}
				/>
			)}
		</>
	);
}

interface EntryProps {
	session: SessionRow;
	opened: boolean;
	answering: boolean;
	rename(): void;
	remove(): void;
}

function SessionEntry({ session, opened, answering, rename, remove }: EntryProps) {
	const id = `title-${session.id}`;
	return (
		<li className={opened ? "opened" : ""}>
			<a
				className="entry"
				id={id}
				title={session.title}
				href={addressOf({ view: "conversation", sessionId: session.id })}
				aria-current={opened ? "page" : undefined}
			>
				{answering && <span className="pulse" role="img" aria-label="Answering" />}
				{session.title}
			</a>
			<span className="changes">
				<button type="button" className="icon" aria-label="Rename" aria-describedby={id} onClick={rename}>
					✎
				</button>
				<button type="button" className="icon" aria-label="Delete" aria-describedby={id} onClick={remove}>
					✕
				</button>
			</span>
		</li>
	);
}
