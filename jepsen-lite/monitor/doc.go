// Package monitor looks at the nodes while a run is on: who leads, what hash
// their states have, and how long after a fault each of them serves again. It
// writes as little as it can: a key for each node, ten times a second.
package monitor
