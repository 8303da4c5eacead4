// Keeps what is marked data-live fresh: the page is asked for again, and only those parts are exchanged.
"use strict";
const parts = document.querySelectorAll("[data-live][id]");
async function refresh() {
  if (document.visibilityState !== "visible") return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live][id]")) {
      const other = fresh.getElementById(part.id);
      if (other && other.innerHTML !== part.innerHTML) part.replaceWith(document.adoptNode(other));
    }
  } catch {
    // the service is away; the next turn asks again
  }
}
if (parts.length) setInterval(refresh, 3000);
