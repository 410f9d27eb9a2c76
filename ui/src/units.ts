/** Sizes and dates as people read them. */

export function shownSize(bytes: number): string {
	if (bytes < 1000) return `${bytes} B`;
	return bytes < 1_000_000 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;
}

export function shownDate(iso: string): string {
	return new Date(iso).toLocaleDateString(undefined, { dateStyle: "medium" });
}
