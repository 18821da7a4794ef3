class SessionsController < ApplicationController
  def create
    reset_session
    session[:login] = Login.create!(user_id: params[:user]).id # here you check a password
    redirect_to root_path, status: :see_other
  end

  def destroy
    if current_login
      ApplicationRecord.transaction do
        current_login.destroy!
        Notifier.revoke(current_user_id)
      end
    end
    reset_session
    redirect_to root_path, status: :see_other
  end
end
