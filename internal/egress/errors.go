package egress

import (
	"errors"

	"github.com/mailgrant/mailgrant"
)

// refused says the same for a private network, this machine and a reserved
// block, and was made before anything was connected to: nobody learns what is
// there. EG-01.
func refused(addr string) error {
	return mailgrant.Errorf(mailgrant.Misset, nil, "mailgrant does not connect to %s", addr).
		Fix("correct the host and port; if the server is yours and lies on an inner network, the operator adds %s to egress.allow", addr)
}

// failed is for a connection that did not come about.
func failed(addr string, err error) error {
	var ours *mailgrant.Error
	if errors.As(err, &ours) {
		return ours
	}
	return mailgrant.Errorf(mailgrant.Unavailable, err, "no connection to %s could be made", addr).
		Fix("check the name and port, and that this machine's firewall lets them through")
}
