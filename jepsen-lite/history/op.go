package history

// Type is what a line tells of an operation.
type Type string

const (
	// Invoke: it begins.
	Invoke Type = "invoke"
	// OK: it took place between its invocation and this line.
	OK Type = "ok"
	// Fail: it certainly did not take place, and never will.
	Fail Type = "fail"
	// Info: nobody knows. It may have taken place, or may at any later time. Of
	// the nemesis, whose operations are no client's, every line is an Info.
	Info Type = "info"
)

// Nemesis is the process of the lines that tell what was done to the cluster.
const Nemesis = -1

// Op is one line of the record.
type Op struct {
	Index    int64  `json:"index"`
	Time     int64  `json:"time"` // ns since the start of the run
	Process  int    `json:"process"`
	Type     Type   `json:"type"`
	F        string `json:"f"`
	Value    any    `json:"value"`
	Node     string `json:"node,omitempty"`
	Workload string `json:"workload,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Call is an operation as a whole: its invocation and what became of it.
type Call struct {
	Process int
	F       string
	Node    string
	// Invoked and Returned are ns since the start of the run. Of an Info,
	// Returned is when the client gave up, which bounds nothing.
	Invoked, Returned int64
	Type              Type // OK, Fail or Info
	// In is the value of the invocation, Out that of the completion.
	In, Out any
	Error   string
}

// Before says that the call was over before the other began: whatever it did,
// the other must see. It never holds of an Info.
func (c *Call) Before(other *Call) bool {
	return c.Type == OK && c.Returned < other.Invoked
}
