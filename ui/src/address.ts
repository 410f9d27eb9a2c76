/** The open conversation is in the address, so that a link opens it. */

import { useCallback, useEffect, useState } from "react";

export function addressOf(sessionId: string): string {
	return `#/session/${encodeURIComponent(sessionId)}`;
}

export function useAddress(): [string | undefined, (sessionId: string | undefined) => void] {
	const [opened, setOpened] = useState(sessionInAddress);
	useEffect(() => {
		const changed = () => setOpened(sessionInAddress());
		window.addEventListener("popstate", changed);
		return () => window.removeEventListener("popstate", changed);
	}, []);
	const open = useCallback((sessionId: string | undefined) => {
		const hash = sessionId === undefined ? "" : addressOf(sessionId);
		if (hash !== window.location.hash) window.history.pushState(null, "", hash || window.location.pathname);
		setOpened(sessionId);
	}, []);
	return [opened, open];
}

function sessionInAddress(): string | undefined {
	const [, id] = /^#\/session\/(.+)$/.exec(window.location.hash) ?? [];
	return id === undefined ? undefined : decodeURIComponent(id);
}
