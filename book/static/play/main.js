// Where a page asks for it, live views stand; see `mount` for what it may ask.
import { mount } from "./page.js";

for (const place of document.querySelectorAll("[data-play]")) mount(place);
