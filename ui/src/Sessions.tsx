/** The list of conversations. */

import { useEffect, useState } from "react";
import { addressOf } from "./address";
import icon from "./icon.svg";
import { Refused, read, send, withBody } from "./server";
import type { SessionPage, SessionRow } from "./wire";

interface Props {
	opened: string | undefined;
	open(sessionId: string | undefined): void;
	/** Changes when the list has changed. */
	version: number;
	refused(): void;
}

export function Sessions({ opened, open, version, refused }: Props) {
	const [sessions, setSessions] = useState<SessionRow[]>([]);
	const [wanted, setWanted] = useState("");
	const [changes, setChanges] = useState(0);

	// biome-ignore lint/correctness/useExhaustiveDependencies: a new version is what the list is read again for
	useEffect(() => {
		read<SessionPage>("/sessions")
			.then((page) => setSessions(page.sessions))
			.catch((problem) => problem instanceof Refused && problem.status === 401 && refused());
	}, [version, changes]);

	const change = (session: SessionRow, init: RequestInit) =>
		send(`/sessions/${encodeURIComponent(session.id)}`, init)
			.catch(() => undefined)
			.finally(() => setChanges((now) => now + 1));
	const rename = (session: SessionRow) => {
		const title = window.prompt("Title", session.title)?.trim();
		if (title) void change(session, withBody("PATCH", { title }));
	};
	const remove = (session: SessionRow) => {
		if (!window.confirm(`Delete "${session.title}" and all its messages?`)) return;
		void change(session, { method: "DELETE" });
		if (session.id === opened) open(undefined);
	};

	const found = sessions.filter((session) => session.title.toLowerCase().includes(wanted.toLowerCase()));
	return (
		<nav className="sessions" aria-label="Conversations">
			<header>
				<img src={icon} alt="" width="24" height="24" />
				<span>Stagecast</span>
				<button type="button" onClick={() => open(undefined)}>
					New
				</button>
			</header>
			<label className="sr-only" htmlFor="wanted">
				Search conversations
			</label>
			<input
				id="wanted"
				type="search"
				placeholder="Search"
				value={wanted}
				onChange={(e) => setWanted(e.target.value)}
			/>
			<ul>
				{found.map((session) => (
					<li key={session.id} className={session.id === opened ? "opened" : ""}>
						<a
							className="title"
							id={`title-${session.id}`}
							href={addressOf(session.id)}
							aria-current={session.id === opened ? "page" : undefined}
						>
							{session.title}
						</a>
						<button
							type="button"
							aria-label="Rename"
							aria-describedby={`title-${session.id}`}
							onClick={() => rename(session)}
						>
							✎
						</button>
						<button
							type="button"
							aria-label="Delete"
							aria-describedby={`title-${session.id}`}
							onClick={() => remove(session)}
						>
							✕
						</button>
					</li>
				))}
			</ul>
		</nav>
	);
}
