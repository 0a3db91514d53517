// Where there is a figure for it, the live page stands in its place.
import { mount } from "./page.js";

for (const figure of document.querySelectorAll("#fig-play")) mount(figure);
