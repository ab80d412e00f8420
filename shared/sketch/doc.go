// Package sketch holds small measures that add up exactly: histograms with
// fixed bins, moments, latency sketches, and the comparisons between them.
// Everything is pure; a value is owned by its caller and is not safe for
// concurrent use.
package sketch
