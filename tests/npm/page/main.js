import { connect } from "pg-notifier";

const url = new URL(location.href).searchParams.get("url") ?? undefined;
try {
  const notifier = connect({ url, share: true });
  notifier.subscribe("a", ({ data }) => (document.title = data), { after: "earliest" });
} catch (error) {
  document.title = `${error.name}: ${error.message}`;
}
