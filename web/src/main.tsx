import { render } from "preact";
import { App, applyTheme } from "./app";
import { takeKeys } from "./keys";
import { followQuery, refresh } from "./search";
import { followServer, watchChanges } from "./server";
import { takeSounds } from "./sounds";
import "./style.css";

applyTheme();
watchChanges(refresh);
followServer();
followQuery();
takeKeys();
takeSounds();
render(<App />, document.body);
