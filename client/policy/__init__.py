"""What the hospital lets run and leave: plain rules over a request and the reply to it.

The same rules are held twice: by the bundle's own code (`client.round.dispatch`), and outside it by the gate (`client.gate`),
which is the hospital's installed code and trusts nothing that a bundle made.
"""
