// Measures of dimensions: the names and tooltips of the table, the map, the filters and the page of a dimension.
Object.assign(window.Sieve, {
  MEASURES: {
    images: { name: "Images", share: true, about: "Share of images in which the dimension is active." },
    texts: { name: "Captions", share: true, about: "Share of captions in which the dimension is active." },
    agreement: { name: "Agreement", about: "Similarity of the dimension’s activations in images and in their captions: 1 if both have it in the same proportions, 0 if never together." },
    mono: { name: "Monosemanticity", header: "Mono\u00adsemanticity", about: "Similarity of the images in which the dimension is active, relative to random images: 1 is a single meaning, 0 is none." },
    auc: { name: "Label AUC", header: "AUC", about: "How well the dimension separates test images with its best label from others: 0.5 is chance, 1 is perfect." },
    stability: { name: "Seed stability", about: "Correlation with the most similar dimension of trainings with other random seeds: 1 is identical, and at least 0.7 counts as the same dimension." },
    word: { name: "Top word", about: "Caption word that correlates best with the dimension." },
  },
});
