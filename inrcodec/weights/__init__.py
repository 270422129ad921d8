"""The codec of weight-coded fields: a network per patch, of which the change from theta_0 is coded."""
