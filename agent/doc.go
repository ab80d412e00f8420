// Package agent wires the device together: identity, link, trust, update, slots,
// inference, measurement and queues. Reading Run is reading the device.
package agent
