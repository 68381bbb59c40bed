package grant

// Wait waits for refreshes under way.
func (k *Keeper) Wait() { k.work.Wait() }
