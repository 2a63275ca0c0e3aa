package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"trivet/client"
)

// What is kept, all of it in the cluster:
//
//	carts/<cart>      a Cart, as JSON
//	orders/<number>   an Order, as JSON
//	limits/<item>     how much of an item a cart may hold, a number
//	next-order        the number of the last order, a counter
const (
	cartPrefix  = "carts/"
	orderPrefix = "orders/"
	limitPrefix = "limits/"
	orderNumber = "next-order"
)

// Cart is what a customer has chosen so far: how many of each item.
type Cart struct {
	Items map[string]int `json:"items"`
}

// Order is a cart that was checked out.
type Order struct {
	Number int64          `json:"number"`
	Cart   string         `json:"cart"`
	Items  map[string]int `json:"items"`
}

const maxQuantity = 1000

// service answers requests. It has nothing that another instance would miss.
type service struct {
	store  *client.Client
	carts  client.View[Cart]
	limits *limits
	// stopping is closed when the instance should get no more requests.
	stopping <-chan struct{}
}

func newService(store *client.Client, stopping <-chan struct{}) http.Handler {
	s := &service{store, client.JSON[Cart](store, cartPrefix), newLimits(store), stopping}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /carts/{cart}", s.getCart)
	mux.HandleFunc("PUT /carts/{cart}/items/{item}", s.setQuantity)
	mux.HandleFunc("POST /carts/{cart}/items/{item}", s.addQuantity)
	mux.HandleFunc("DELETE /carts/{cart}/items/{item}", s.deleteItem)
	mux.HandleFunc("POST /carts/{cart}/checkout", s.checkout)
	mux.HandleFunc("GET /orders/{number}", s.getOrder)
	mux.HandleFunc("PUT /limits/{item}", s.setLimit)
	mux.HandleFunc("GET /healthz", s.healthz)
	return mux
}

func (s *service) getCart(w http.ResponseWriter, r *http.Request) {
	cart, _, err := s.load(r.Context(), r.PathValue("cart"))
	reply(w, cart, err)
}

// setQuantity sets how many of the item there are: ?quantity=3.
func (s *service) setQuantity(w http.ResponseWriter, r *http.Request) {
	quantity, err := strconv.Atoi(r.URL.Query().Get("quantity"))
	if err != nil {
		fail(w, http.StatusBadRequest, "say how many: ?quantity=3")
		return
	}
	s.change(w, r, func(int) int { return quantity })
}

// addQuantity adds to how many there are, or takes away: ?add=-1.
func (s *service) addQuantity(w http.ResponseWriter, r *http.Request) {
	add, err := strconv.Atoi(r.URL.Query().Get("add"))
	if err != nil || add < -maxQuantity || add > maxQuantity {
		fail(w, http.StatusBadRequest, fmt.Sprintf("say how many more, from %d to %d: ?add=1", -maxQuantity, maxQuantity))
		return
	}
	s.change(w, r, func(had int) int { return had + add })
}

func (s *service) deleteItem(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(int) int { return 0 })
}

// change changes the quantity of the item that the request names, and replies
// with the cart as it is then.
//
// Two instances may do this to one cart at the same time. Update reads the cart,
// has it changed, and writes it back on the condition that it is still at the
// revision that was read; of two such writes one succeeds, and the other starts again
// from what the first one left. So no change is lost. And none is made twice: the
// client repeats a write whose answer was lost under the identity that it had.
func (s *service) change(w http.ResponseWriter, r *http.Request, to func(had int) int) {
	item := r.PathValue("item")
	most, err := s.limits.of(r.Context(), item)
	if err != nil {
		reply(w, nil, err)
		return
	}
	cart, err := s.carts.Update(r.Context(), r.PathValue("cart"), func(cart *Cart, _ bool) error {
		if cart.Items == nil {
			cart.Items = map[string]int{}
		}
		switch n := to(cart.Items[item]); {
		case n < 0 || (n > most && n > cart.Items[item]):
			return quantityError(fmt.Sprintf("the quantity would be %d, and may be 0 to %d", n, most))
		case n == 0:
			delete(cart.Items, item)
		default:
			cart.Items[item] = n
		}
		return nil
	})
	reply(w, cart, err)
}

// quantityError is a change that a cart does not allow.
type quantityError string

func (e quantityError) Error() string { return string(e) }

// load returns a cart and its revision. One that nobody has put anything into is
// empty, at revision 0. The read is linearizable: it sees what any instance has
// acknowledged to its caller.
func (s *service) load(ctx context.Context, name string) (Cart, uint64, error) {
	doc, err := s.carts.Get(ctx, name)
	if errors.Is(err, client.ErrNotFound) {
		return Cart{Items: map[string]int{}}, 0, nil
	}
	return doc.Value, doc.Item.ModRevision, err
}

// checkout turns the cart into an order: in one transaction the order is there
// and the cart is gone, if the cart is still the one that was read.
//
// The number comes from a counter that all instances share. It is taken before,
// so a checkout that fails leaves a gap; no number is ever used twice.
func (s *service) checkout(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("cart")
	order := Order{Cart: name}
	for {
		cart, revision, err := s.load(r.Context(), name)
		if err != nil {
			reply(w, nil, err)
			return
		}
		if len(cart.Items) == 0 {
			fail(w, http.StatusConflict, "the cart is empty")
			return
		}
		if order.Number == 0 {
			if order.Number, err = s.store.Add(r.Context(), orderNumber, 1); err != nil {
				// Not even a number that may have been taken does harm.
				fail(w, http.StatusServiceUnavailable, "nothing was ordered: "+err.Error())
				return
			}
		}
		order.Items = cart.Items
		value, err := json.Marshal(order)
		if err != nil {
			reply(w, nil, err)
			return
		}
		res, err := s.store.Txn().
			If(client.ModRevisionOf(cartPrefix+name).Equal(revision)).
			Then(
				client.OpPut(orderPrefix+strconv.FormatInt(order.Number, 10), value),
				client.OpDelete(cartPrefix+name),
			).
			Commit(r.Context())
		if err == nil && !res.Succeeded {
			continue // the cart has changed
		}
		w.Header().Set("Location", "/orders/"+strconv.FormatInt(order.Number, 10))
		reply(w, order, err)
		return
	}
}

func (s *service) getOrder(w http.ResponseWriter, r *http.Request) {
	item, err := s.store.Get(r.Context(), orderPrefix+r.PathValue("number"))
	reply(w, json.RawMessage(item.Value), err)
}

// healthz says whether this instance should get requests. It does not ask the
// cluster: were that away, taking every instance out of service would help nobody.
func (s *service) healthz(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.stopping:
		fail(w, http.StatusServiceUnavailable, "stopping")
	default:
		reply(w, map[string]bool{"ok": true}, nil)
	}
}

// reply writes v, or what err means to the caller of this service.
func reply(w http.ResponseWriter, v any, err error) {
	var refused quantityError
	switch {
	case errors.As(err, &refused):
		fail(w, http.StatusUnprocessableEntity, refused.Error())
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	case errors.Is(err, client.ErrNotFound):
		fail(w, http.StatusNotFound, "there is no such thing")
	case errors.Is(err, client.ErrBadRequest), errors.Is(err, client.ErrTooLarge):
		fail(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, client.ErrUnknown):
		// To try again by ourselves could make the change twice. The caller knows
		// whether that matters.
		fail(w, http.StatusGatewayTimeout, "it may have been done, look before trying again: "+err.Error())
	case errors.Is(err, client.ErrUnavailable):
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "nothing was done, try again: "+err.Error())
	default:
		fail(w, http.StatusInternalServerError, err.Error())
	}
}

func fail(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": text})
}
