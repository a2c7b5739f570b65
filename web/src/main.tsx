import { render } from "preact";
import { App, applyTheme } from "./app";
import { CollectionsView, followCollections, Star } from "./collections";
import { DuplicatesView, followDuplicates } from "./duplicates";
import { rowActions, views } from "./extensions";
import { takeKeys } from "./keys";
import { MapView } from "./map";
import { followQuery, refresh } from "./search";
import { followServer, watchChanges } from "./server";
import { takeSounds } from "./sounds";
import "./style.css";

rowActions.value = [Star];
views.value = [
  { id: "collections", title: "Collections", component: CollectionsView },
  { id: "duplicates", title: "Duplicates", component: DuplicatesView },
  { id: "map", title: "Map", component: MapView },
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
