/** What is on the page is in its address, so that a link opens it. */

import { useCallback, useEffect, useState } from "react";

export type Place =
	| { view: "conversation"; sessionId?: string }
	/** `query`: what is searched for. */
	| { view: "collection"; query?: string }
	/** `chunk`: the position of the passage that is shown in its place. */
	| { view: "document"; documentId: string; chunk?: number };

export function addressOf(place: Place): string {
	switch (place.view) {
		case "conversation":
			return place.sessionId === undefined ? "#/" : `#/session/${encodeURIComponent(place.sessionId)}`;
		case "collection":
			return place.query === undefined ? "#/collection" : `#/collection?query=${encodeURIComponent(place.query)}`;
		case "document": {
			const address = `#/document/${encodeURIComponent(place.documentId)}`;
			return place.chunk === undefined ? address : `${address}?chunk=${place.chunk}`;
		}
	}
}

/** An address that nothing is known of is a new conversation. */
export function placeOf(hash: string): Place {
	const [, session] = /^#\/session\/([^?]+)$/.exec(hash) ?? [];
	if (session !== undefined) return { view: "conversation", sessionId: decoded(session) };
	const [collection, query] = /^#\/collection(?:\?query=(.*))?$/.exec(hash) ?? [];
	if (collection) return query ? { view: "collection", query: decoded(query) } : { view: "collection" };
	const [, id, chunk] = /^#\/document\/([^?]+)(?:\?chunk=(\d+))?$/.exec(hash) ?? [];
	if (id === undefined) return { view: "conversation" };
	const whole: Place = { view: "document", documentId: decoded(id) };
	return chunk === undefined ? whole : { ...whole, chunk: Number(chunk) };
}

function decoded(part: string): string {
	try {
		return decodeURIComponent(part);
	} catch {
		return part;
	}
}

export function usePlace(): [Place, (place: Place) => void] {
	const [place, setPlace] = useState(() => placeOf(window.location.hash));
	useEffect(() => {
		const changed = () => setPlace(placeOf(window.location.hash));
		window.addEventListener("popstate", changed);
		return () => window.removeEventListener("popstate", changed);
	}, []);
	const go = useCallback((next: Place) => {
		const hash = addressOf(next);
		if (hash !== (window.location.hash || "#/")) window.history.pushState(null, "", hash);
		setPlace(next);
	}, []);
	return [place, go];
}
