package main
import "github.com/spf13/cobra"
func newGet() *cobra.Command { return &cobra.Command{Use:"get"} }
func newPut() *cobra.Command { return &cobra.Command{Use:"put"} }
func newDelete() *cobra.Command { return &cobra.Command{Use:"delete"} }
func newList() *cobra.Command { return &cobra.Command{Use:"list"} }
func newAdd() *cobra.Command { return &cobra.Command{Use:"add"} }
func newBench() *cobra.Command { return &cobra.Command{Use:"bench"} }
