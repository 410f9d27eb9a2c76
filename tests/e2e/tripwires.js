// What an answer must never do to the page, noted from the page's first moment on, passing states included.
window.found = [];
const BANNED =
	"img,image,script,iframe,frame,style,object,embed,form,svg,math,audio,video,source,picture,link,base,meta,template,noscript,textarea,select,dialog,details,[src],[srcset],[srcdoc],[href],[action],[formaction],[poster],[ping],[data],[background],[name],[autofocus],[contenteditable],input:not([type=checkbox][disabled]),:is(a,button,[role=button]) :is(a,button,input)";
const ALIGNMENT = /^text-align: (left|center|right);$/;

function wrong(element) {
	const names = element.getAttributeNames();
	const handlers = names.filter((name) => name.startsWith("on"));
	const styled = element.hasAttribute("style") && !ALIGNMENT.test(element.getAttribute("style"));
	const clobbers = element.id && !/^(user-content-|footnote-label$|base-ui-)/.test(element.id);
	return element.matches(BANNED) || element.localName.includes("-") || handlers.length || styled || clobbers;
}

function inspect(element) {
	if (element.parentElement?.closest(".text") && wrong(element)) found.push(element.outerHTML.slice(0, 200));
}

function inspectAll(node) {
	if (node.nodeType !== Node.ELEMENT_NODE) return;
	for (const element of [node, ...node.querySelectorAll("*")]) inspect(element);
}

new MutationObserver((changes) => {
	for (const { type, target, addedNodes } of changes) {
		if (type === "attributes") inspect(target);
		addedNodes.forEach(inspectAll);
	}
}).observe(document, { subtree: true, childList: true, attributes: true });
document.addEventListener("securitypolicyviolation", (event) => found.push(`CSP ${event.violatedDirective}`));
