package client

// StreamConns is how many connections watches have.
func (c *Client) StreamConns() int {
	c.streams.mu.Lock()
	defer c.streams.mu.Unlock()
	return len(c.streams.open)
}
