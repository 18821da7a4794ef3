/** The page comes with rows of all topics. Where its address asks for others, they must not be seen before it has those. */
if (!/^#?(\*\*)?(\?open=\d+)?$/.test(location.hash)) document.documentElement.dataset.asks = "";
