import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const SERVER = process.env.STAGECAST_URL ?? "http://localhost:8000";
const ROUTES = ["/chat", "/runs", "/sessions", "/documents", "/jobs", "/search", "/plugins", "/health", "/schema"];

export default defineConfig({
	plugins: [react()],
	build: { outDir: "../api/page", emptyOutDir: true, assetsInlineLimit: 0, chunkSizeWarningLimit: 1000 },
	server: { port: 3000, proxy: Object.fromEntries(ROUTES.map((route) => [route, SERVER])) },
	test: { include: ["tests/**/*.test.ts"] },
});
