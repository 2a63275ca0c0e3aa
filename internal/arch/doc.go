// Package arch holds the rule of who imports whom, as a test.
package arch
