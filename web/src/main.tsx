import { render } from "preact";
import { App, applyTheme } from "./app";
import { CollectionsView, followCollections, Star } from "./collections";
import { DuplicatesView, followDuplicates } from "./duplicates";
import { rowActions, views } from "./extensions";
import { takeKeys } from "./keys";
import { followQuery, refresh } from "./search";
import { followServer, watchChanges } from "./server";
import { takeSounds } from "./sounds";
import "./style.css";

rowActions.value = [Star];
views.value = [
  { id: "collections", title: "Collections", component: CollectionsView },
  { id: "duplicates", title: "Duplicates", component: DuplicatesView },
];

applyTheme();
watchChanges(refresh);
followDuplicates();
followServer();
followQuery();
followCollections();
takeKeys();
takeSounds();
render(<App />, document.body);
