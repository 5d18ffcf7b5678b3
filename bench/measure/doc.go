// Package measure compares pieces of work with each other on a machine that is
// not quiet. Absolute times on shared cores move by a factor of two from one
// minute to the next, so nothing here trusts one: works run in short windows that
// alternate, the order turns with every round, and what counts is the median of
// the ratios of neighbouring windows, with its quartiles beside it.
//
// Work that is bound by the CPU is measured in CPU time of the whole process,
// which charges a work for the garbage that it leaves and not for what other
// processes do meanwhile.
package measure
